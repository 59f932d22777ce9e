#!/usr/bin/env bash
# Several pre-trainings and seeds, recognition from each on the same data, then one report:
#   compare.sh SSL_RUN_SH ASR_RUN_SH [--trainings "none bestrq birq"] [--seeds "1 2 3"] [--jobs 2]
#       [--ssl_options "..."] [--ssl_config "..."] [--ssl_train_args "..."] [--start cssl] [--ssl_exp DIR]
#       [options of ASR_RUN_SH]
# A training is `none`, an objective (a yaml of conf/method), or what goes on from the experiments of --start: `hubert`
# clusters their states; any other name is a configuration of PTLOC or of a control. `cssl` is bestrq under that name.
# What is finished is not done again, so a second call with another corpus takes the encoders of the first.
set -euo pipefail

trainings="none bestrq birq birq_detached hubert"
seeds="1 2 3"
jobs=2                          # trainings at a time, one thread each
ssl_options=                    # of SSL_RUN_SH, for every pre-training
ssl_config="train_small codes_small"
ssl_train_args=                 # as --train_args, for every pre-training
start=bestrq                    # what hubert, PTLOC and the controls start from
ssl_exp=                        # where pre-trainings go; default: exp beside SSL_RUN_SH
usage="usage: compare.sh SSL_RUN_SH ASR_RUN_SH [--trainings ..] [--seeds ..] [--jobs ..] [--ssl_options ..] [--ssl_config ..]
    [--ssl_train_args ..] [--start ..] [--ssl_exp DIR] [options of ASR_RUN_SH]"
ssl_sh=$(realpath -- "${1:?${usage}}")
asr_sh=$(realpath -- "${2:?${usage}}")
shift 2
asr_options=()
while [ $# -gt 0 ]; do
    case "$1" in
        --trainings | --seeds | --jobs | --ssl_options | --ssl_config | --ssl_train_args | --start | --ssl_exp)
            printf -v "${1#--}" '%s' "$2" && shift 2 ;;
        *) asr_options+=("$1") && shift ;;
    esac
done
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
ssl_exp=${ssl_exp:-$(dirname "${ssl_sh}")/exp}
mkdir -p "${ssl_exp}"
ssl_exp=$(realpath -- "${ssl_exp}")
conf=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/conf
read -r -a names <<<"${trainings}"
read -r -a seed_numbers <<<"${seeds}"
read -r -a common <<<"${ssl_options}"
common+=(--expdir "${ssl_exp}")

pretrain() {  # training, seed
    local from=${ssl_exp}/${start}_seed$2 options=(--seed "$2" --ssl_tag "$1_seed$2" --label "$1") config=${ssl_config}
    if [ "$1" = hubert ]; then
        options+=(--method hubert --kmeans_exp "${from}")
    elif [ -f "${conf}/method/$1.yaml" ]; then
        options+=(--method "$1")
    elif [ "$1" = cssl ]; then
        options+=(--method bestrq)
    else
        options+=(--method bestrq --ssl_init "${from}")
        config+=" $1"
    fi
    "${ssl_sh}" "${common[@]}" --ssl_config "${config}" --train_args "${ssl_train_args}" "${options[@]}" \
        --stage 5 --stop_stage 7
}
recognise() {  # training, seed: to stage 12, reports are made one after another
    local pretrained=()
    if [ "$1" != none ]; then pretrained=(--pretrained "${ssl_exp}/$1_seed$2"); fi
    "${asr_sh}" "${asr_options[@]}" "${pretrained[@]}" --seed "$2" --asr_tag "$1_seed$2" --stage 11 --stop_stage "$3" \
        --method supervised
}
each() {  # function, jobs, trainings ...: with every seed; a job's failure is the script's
    local failed=0 running=0
    for seed in "${seed_numbers[@]}"; do
        for name in "${@:3}"; do
            if [ "${running}" -ge "$2" ]; then wait -n || failed=1; else running=$((running + 1)); fi
            if [ "${failed}" = 0 ]; then "$1" "${name}" "${seed}" 12 </dev/null & fi
        done
    done
    for ((; running > 0; running--)); do wait -n || failed=1; done
    return "${failed}"
}

"${ssl_sh}" "${common[@]}" --ssl_config "${ssl_config}" --method bestrq --stop_stage 6
first=() rest=()
for name in "${names[@]}"; do
    if [ "${name}" = none ]; then continue; fi
    if [ "${name}" = "${start}" ]; then first=("${name}"); else rest+=("${name}"); fi
done
each pretrain "${jobs}" "${first[@]}"
each pretrain "${jobs}" "${rest[@]}"
"${asr_sh}" "${asr_options[@]}" --method supervised --stop_stage 10
each recognise "${jobs}" "${names[@]}"
for name in "${names[@]}"; do
    for seed in "${seed_numbers[@]}"; do recognise "${name}" "${seed}" 13 </dev/null; done
done
