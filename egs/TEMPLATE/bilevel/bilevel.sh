#!/usr/bin/env bash
# A bilevel problem outside speech recognition: every method and seed, then a report. A recipe's run.sh calls this with
# its options; those that are not listed here go to `bilevel PROBLEM` as they are.
set -euo pipefail

template=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "${template}/../../.." && pwd)
caller=${PWD}
python=python3
if [ -x "${root}/.venv/bin/python" ]; then python=${root}/.venv/bin/python; fi

recipe=${caller}                # folder of the recipe; exp goes there
problem=                        # command that solves one case: svm or transport
src=                            # folder with the data, as seen from where you call
methods=blocc                   # methods, separated by spaces; conf/METHOD.yaml of the recipe is read where it exists
seeds=0                         # seeds, separated by spaces
conf=                           # further yaml files of the recipe's conf, separated by spaces; later ones win
tag=                            # put before the name of each run
stage=1                         # 1 solve, 2 report
stop_stage=2
nj=1                            # runs at a time, one thread each
expdir=exp                      # results
passed=()                       # options of `bilevel PROBLEM`

usage() {
    echo "usage: run.sh [--option value ...]; stages: 1 solve, 2 report"
    sed -n '/^recipe=/,/^expdir=/{s/^\([a-z_]*\)=\([^#]*\)#* *\(.*\)/  --\1 [\2] \3/;s/ *\]/]/;p}' "${BASH_SOURCE[0]}"
    echo "options of the problem:"
    cd "${root}" && "${python}" -m "bilevel.bin.${problem}" --help
}
while [ $# -gt 0 ]; do
    case "$1" in
        --help | -h) usage && exit 0 ;;
        --recipe | --problem | --src | --methods | --seeds | --conf | --tag | --stage | --stop_stage | --nj | --expdir)
            printf -v "${1#--}" '%s' "${2?"$1 needs a value"}" && shift 2 ;;
        --*)
            passed+=("$1") && shift
            if [ $# -gt 0 ] && [[ $1 != --* ]]; then passed+=("$1") && shift; fi ;;
        *) echo "error: $1: expected --option value" >&2 && exit 2 ;;
    esac
done
if [ -n "${src}" ]; then passed+=(--src "$(cd "${caller}" && realpath -- "${src}")"); fi
echo "cd $(printf %q "${recipe}")  # every command below runs here"
cd "${recipe}"
export PYTHONPATH=${root}${PYTHONPATH:+:${PYTHONPATH}}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# The name of a run tells its options apart: --network three_node --gamma 4 becomes _three_node_4.
variant=$(printf '_%s' "${passed[@]}" | sed -e 's/_--[a-z_]*//g' -e "s#_/[^_]*##g" -e 's/[^A-Za-z0-9_.=-]/-/g')

commands() {  # one line each, ready for a shell
    for seed in ${seeds}; do
        for method in ${methods}; do
            files=()
            for name in "${method}" ${conf}; do
                if [ -f "conf/${name%.yaml}.yaml" ]; then files+=(--conf "conf/${name%.yaml}.yaml"); fi
            done
            printf '%q ' "${python}" -m "bilevel.bin.${problem}" --method "${method}" --seed "${seed}" "${files[@]}" \
                "${passed[@]}" --exp_dir "${expdir}/${tag:+${tag}_}${method}${variant}_seed${seed}"
            echo
        done
    done
}
if [ "${stage}" -le 1 ] && [ "${stop_stage}" -ge 1 ]; then
    echo "== stage 1: solve"
    commands | tee /dev/stderr | xargs -P "${nj}" -d '\n' -L 1 bash -c
fi
if [ "${stage}" -le 2 ] && [ "${stop_stage}" -ge 2 ]; then
    echo "== stage 2: report"
    "${python}" -m bilevel.bin.report "${expdir}" --title "${problem}: bilevel results"
fi
