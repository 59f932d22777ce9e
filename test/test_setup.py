"""Set-up: nothing to do the second time, a clear error without an interpreter, versions that fit the bounds."""

import ast
import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = "tools/setup_venv.sh"
PROGRAMS = ("bash", "cat", "cut", "dirname", "sha256sum")


@pytest.fixture
def tree(tmp_path):
    """A copy of what the set-up reads."""
    copy = tmp_path / "tree"
    for name in ("setup.py", "constraints.txt", SCRIPT):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture
def bare(tmp_path):
    """An environment with a few programs and no Python."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in PROGRAMS:
        (programs / name).symlink_to(shutil.which(name))
    return {"PATH": str(programs), "HOME": str(tmp_path / "nobody")}


def set_up(tree: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shutil.which("bash"), tree / SCRIPT], env=environment, capture_output=True, text=True, timeout=60
    )


def test_a_second_call_installs_nothing_and_is_quick(tree, bare):
    content = b"".join((tree / name).read_bytes() for name in ("setup.py", "constraints.txt", SCRIPT))
    (tree / ".venv").mkdir()
    (tree / ".venv/.installed").write_text(hashlib.sha256(content).hexdigest() + "\n")
    start_sec = time.perf_counter()
    done = set_up(tree, bare)  # it could not install anything: there is no Python
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.perf_counter() - start_sec < 3
    (tree / "constraints.txt").write_text("numpy==0\n")
    assert set_up(tree, bare).returncode != 0, "other constraints need another installation"


def test_without_an_interpreter_the_error_says_what_to_install(tree, bare):
    done = set_up(tree, bare)
    assert done.returncode == 1
    assert "no Python 3.12 or 3.13 on PATH, in pyenv or in uv" in done.stderr
    assert "PYTHON=/path/to/python3.12" in done.stderr
    assert not (tree / ".venv").exists()


def test_an_old_interpreter_does_not_count_and_pyenv_is_searched(tree, bare, tmp_path):
    def fake(path: Path, body: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!{shutil.which('bash')}\n{body}\n")
        path.chmod(0o755)

    fake(Path(bare["PATH"]) / "python3", "exit 1")  # as an interpreter of another version answers the question
    assert "no Python" in set_up(tree, bare).stderr
    fake(Path(bare["HOME"]) / ".pyenv/versions/3.12.9/bin/python3", '[ "$1" = -c ] && exit 0; echo "called $*"; exit 7')
    done = set_up(tree, bare)
    assert f"creating .venv with {bare['HOME']}/.pyenv/versions/3.12.9/bin/python3" in done.stdout
    assert "called -m venv --clear .venv" in done.stdout
    assert done.returncode == 7


def requirements() -> list[Requirement]:
    """What setup.py names, read without running it."""
    found = []
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List | ast.Dict):
            value = ast.literal_eval(node.value)
            found += value if isinstance(value, list) else [item for items in value.values() for item in items]
    return [Requirement(text) for text in found]


def constraints() -> dict[str, str]:
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pins = dict(line.split("==") for line in lines if line)
    return {canonicalize_name(name): version for name, version in pins.items()}


def test_the_tested_versions_fit_the_bounds():
    pinned = constraints()
    assert len(requirements()) > 15
    for requirement in requirements():
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} but constraints.txt has {version}"


def test_every_bound_has_its_reason():
    for line in (ROOT / "setup.py").read_text().splitlines():
        text = line.strip()
        if text.startswith('"') and "=" in text and text not in ('"pytest>=8.0",', '"ruff>=0.9",'):
            assert "  # " in text, f"{text}: say why"


def test_constraints_name_no_place():
    text = (ROOT / "constraints.txt").read_text()
    assert "://" not in text
    assert " @ " not in text
    assert not any(line.startswith("-") for line in text.splitlines())


def test_this_checkout_is_set_up(root):
    if not (root / ".venv/.installed").exists():
        pytest.skip("this checkout's .venv was not made by tools/setup_venv.sh")
    start_sec = time.perf_counter()
    done = set_up(root, dict(os.environ))
    assert (done.returncode, done.stdout) == (0, "")
    assert time.perf_counter() - start_sec < 3
