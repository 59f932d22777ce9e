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
problem=                        # command that solves one instance: svm or transport
instance_option=                # its option that names the instance; run.sh takes that option, too
instance=                       # the instance
src=                            # folder with the data, as seen from where you call
methods=blocc                   # separated by spaces; conf/METHOD.yaml and conf/INSTANCE.yaml are read where they exist
seeds=0                         # seeds, separated by spaces
conf=                           # further yaml files of the recipe's conf, separated by spaces; later ones win
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
        "--${instance_option:-instance}") instance=${2?"$1 needs a value"} && shift 2 ;;
        --recipe | --problem | --instance_option | --instance | --src | --methods | --seeds | --conf | --stage | --stop_stage | --nj | --expdir)
            printf -v "${1#--}" '%s' "${2?"$1 needs a value"}" && shift 2 ;;
        --*)
            passed+=("$1") && shift
            if [ $# -gt 0 ] && [[ $1 != --* ]]; then passed+=("$1") && shift; fi ;;
        *) echo "error: $1: expected --option value" >&2 && exit 2 ;;
    esac
done
variant=                        # tells runs with other options apart: --gamma 4 adds _4
for word in ${conf} "${passed[@]}"; do
    if [[ ${word} != --* ]]; then variant+=_${word//[^A-Za-z0-9_.=-]/-}; fi
done
if [ -n "${src}" ]; then passed+=(--src "$(cd "${caller}" && realpath -- "${src}")"); fi
echo "cd $(printf %q "${recipe}")  # every command below runs here"
cd "${recipe}"
export PYTHONPATH=${root}${PYTHONPATH:+:${PYTHONPATH}}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
commands() {  # one line each, ready for a shell
    for seed in ${seeds}; do
        for method in ${methods}; do
            files=()
            for name in "${method}" "${instance}" ${conf}; do
                if [ -f "conf/${name%.yaml}.yaml" ]; then files+=(--conf "conf/${name%.yaml}.yaml"); fi
            done
            printf '%q ' "${python}" -m "bilevel.bin.${problem}" --method "${method}" --seed "${seed}" "${files[@]}" \
                "--${instance_option}" "${instance}" "${passed[@]}" \
                --exp_dir "${expdir}/${method}_${instance}${variant}_seed${seed}"
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
