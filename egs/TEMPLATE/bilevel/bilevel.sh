#!/usr/bin/env bash
# A bilevel problem outside speech recognition: every method and seed, then a report. A recipe's run.sh calls this with
# its options; those that are not listed here go to `bilevel PROBLEM` as they are.
set -euo pipefail

# shellcheck source=utils/recipe.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../../utils/recipe.sh"

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

usage() {
    echo "usage: run.sh [--option value ...]; stages: 1 solve, 2 report"
    list_options
    echo "options of the problem:"
    cd "${root}" && "${python}" -m "bilevel.bin.${problem}" --help
}
passed=()                       # options of `bilevel PROBLEM`
unknown_option() {
    if [[ $1 != --* ]]; then echo "error: $1: expected --option value" >&2 && exit 2; fi
    if [ "${option}" = "${instance_option}" ]; then instance=${2?"error: $1 needs a value"} && return; fi
    if [ $# -lt 2 ] || [[ $2 == --* ]]; then taken=1; fi  # a switch
    passed+=("${@:1:taken}")
}
parse_options "$@"
variant=                        # tells runs with other options apart: --gamma 4 adds _4
for word in ${conf} "${passed[@]}"; do
    if [[ ${word} != --* ]]; then variant+=_${word//[^A-Za-z0-9_.=-]/-}; fi
done
from_caller -m src
if [ -n "${src}" ]; then passed+=(--src "${src}"); fi
enter_recipe
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
if begins 1 "solve"; then commands | tee /dev/stderr | xargs -P "${nj}" -d '\n' -L 1 bash -c; fi
if begins 2 "report"; then run report "${expdir}" --title "${problem}: bilevel results"; fi
