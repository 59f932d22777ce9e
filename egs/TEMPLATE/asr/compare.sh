#!/usr/bin/env bash
# Several methods and seeds of one recipe on the same data, then one report:
#   compare.sh RUN_SH [--methods "supervised bljust"] [--seeds "0 1 2"] [--jobs 2] [options of RUN_SH]
set -euo pipefail

methods="supervised pretrain_finetune weighted_sum bljust"
seeds="0 1 2"
jobs=2                          # trainings at a time, one thread each
run_sh=$(realpath -- "${1:?usage: compare.sh RUN_SH [--methods ..] [--seeds ..] [--jobs ..] [options of RUN_SH]}")
shift
options=()
while [ $# -gt 0 ]; do
    case "$1" in
        --methods | --seeds | --jobs) printf -v "${1#--}" '%s' "$2" && shift 2 ;;
        *) options+=("$1") && shift ;;
    esac
done
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

read -r -a method_names <<<"${methods}"
read -r -a seed_numbers <<<"${seeds}"
"${run_sh}" "${options[@]}" --method "${method_names[0]}" --stop_stage 10
trainings() {  # one line each: method, seed
    for seed in "${seed_numbers[@]}"; do
        for method in "${method_names[@]}"; do echo "${method} ${seed}"; done
    done
}
train() { "${run_sh}" "${@:1:$#-2}" --method "${*: -2:1}" --seed "${*: -1}" --stage 11 --stop_stage 12; }
export -f train
export run_sh
# shellcheck disable=SC2016  # expanded by the inner shell
trainings | xargs -P "${jobs}" -L 1 bash -c 'train "$@"' train "${options[@]}"
trainings | while read -r method seed; do
    "${run_sh}" "${options[@]}" --method "${method}" --seed "${seed}" --stage 13 </dev/null
done
