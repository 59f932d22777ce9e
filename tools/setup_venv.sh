#!/usr/bin/env bash
# Create .venv and install everything, once: a second call compares one checksum and returns.
#
# SYSTEM_TORCH=1 uses the interpreter's own torch and torchaudio (for instance a GPU machine's build) instead of
# installing the constrained ones. PYTHON=/path/to/python names the interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

wanted=$(cat setup.py constraints.txt tools/setup_venv.sh | sha256sum | cut -d' ' -f1)
if [ "$(cat .venv/.installed 2>/dev/null)" = "${wanted}" ]; then exit 0; fi

fits() { "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 12) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; }
find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.13 python3.12 python3 python \
        "${PYENV_ROOT:-${HOME}/.pyenv}"/versions/3.1[23].*/bin/python3 "$(uv python find '>=3.12,<3.14' 2>/dev/null)"; do
        if [ -n "${candidate}" ] && command -v "${candidate}" >/dev/null && fits "${candidate}"; then
            command -v "${candidate}"
            return
        fi
    done
    echo "error: no Python 3.12 or 3.13 on PATH, in pyenv or in uv; install one (uv python install 3.12," \
        "pyenv install 3.12) or name it: make PYTHON=/path/to/python3.12" >&2
    return 1
}

if [ ! -x .venv/bin/python ] || ! fits .venv/bin/python; then
    python=$(find_python)
    echo "creating .venv with ${python}"
    "${python}" -m venv --clear ${SYSTEM_TORCH:+--system-site-packages} .venv
fi
constraints=constraints.txt
if [ -n "${SYSTEM_TORCH:-}" ]; then
    grep -vE '^(torch|torchaudio|triton|nvidia-|cuda-)' constraints.txt >.venv/constraints.txt
    constraints=.venv/constraints.txt
fi
echo "installing into .venv (about 6 GB, some minutes)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c "${constraints}" -e '.[all]'
echo "${wanted}" >.venv/.installed
