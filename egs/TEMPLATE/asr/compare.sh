#!/usr/bin/env bash
# Several methods and seeds of one recipe on the same data, then one report:
#   compare.sh RUN_SH [--methods "supervised bljust"] [--seeds "0 1 2"] [--jobs 2] [options of RUN_SH]
set -euo pipefail

# shellcheck source=utils/recipe.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../../utils/recipe.sh"

methods="supervised pretrain_finetune weighted_sum bljust"
seeds="0 1 2"
jobs=2                          # trainings at a time, one thread each

usage() {
    echo "usage: compare.sh RUN_SH [--option value ...] [options of RUN_SH]"
    list_options
}
words=()
unknown_option() { words+=("$1") && taken=1; }
parse_options "$@"
run_sh=$(realpath -- "${words[0]:?"$(usage)"}")

train() { "${run_sh}" "${words[@]:1}" --method "$1" --seed "$2" "${@:3}"; }
read -r first _ <<<"${methods}"
"${run_sh}" "${words[@]:1}" --method "${first}" --stop_stage 10
each "${jobs}" "${methods}" train --report false --stage 11
train "${first}" "${seeds%% *}" --stage 13  # all has been scored
