#!/usr/bin/env bash
# Several pre-trainings and seeds, recognition from each on the same data, then one report:
#   compare.sh SSL_RUN_SH ASR_RUN_SH [--trainings "none bestrq birq"] [--seeds "1 2 3"] [--jobs 2]
#       [--ssl_options "..."] [--ssl_config "..."] [--ssl_train_args "..."] [--start cssl] [--ssl_exp DIR]
#       [options of ASR_RUN_SH]
# A training is `none`, an objective (a yaml of conf/method), or what goes on from the experiments of --start: `hubert`
# clusters their states; any other name is a configuration of PTLOC or of a control. `cssl` is bestrq under that name.
# What is finished is not done again, so a second call with another corpus takes the encoders of the first.
set -euo pipefail

# shellcheck source=utils/recipe.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../../utils/recipe.sh"

trainings="none bestrq birq birq_detached hubert"
seeds="1 2 3"
jobs=2                          # trainings at a time, one thread each
ssl_options=                    # of SSL_RUN_SH, for every pre-training
ssl_config="train_small codes_small"
ssl_train_args=                 # as --train_args, for every pre-training
start=bestrq                    # what hubert, PTLOC and the controls start from
ssl_exp=                        # where pre-trainings go; default: exp beside SSL_RUN_SH

usage() {
    echo "usage: compare.sh SSL_RUN_SH ASR_RUN_SH [--option value ...] [options of ASR_RUN_SH]"
    list_options
}
words=()
unknown_option() { words+=("$1") && taken=1; }
parse_options "$@"
ssl_sh=$(realpath -- "${words[0]:?"$(usage)"}")
asr_sh=$(realpath -- "${words[1]:?"$(usage)"}")
ssl_exp=${ssl_exp:-$(dirname "${ssl_sh}")/exp}
mkdir -p "${ssl_exp}"
ssl_exp=$(realpath -- "${ssl_exp}")
split common "${ssl_options}"
common+=(--expdir "${ssl_exp}")

pretrain() {  # training, seed
    local from=${ssl_exp}/${start}_seed$2 options=(--seed "$2" --ssl_tag "$1_seed$2" --label "$1") config=${ssl_config}
    if [ "$1" = hubert ]; then
        options+=(--method hubert --kmeans_exp "${from}")
    elif [ -f "${template}/conf/method/$1.yaml" ]; then
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
recognise() {  # training, seed, stages
    local pretrained=()
    if [ "$1" != none ]; then pretrained=(--pretrained "${ssl_exp}/$1_seed$2"); fi
    "${asr_sh}" "${words[@]:2}" "${pretrained[@]}" --seed "$2" --asr_tag "$1_seed$2" --method supervised "${@:3}"
}

"${ssl_sh}" "${common[@]}" --ssl_config "${ssl_config}" --method bestrq --stop_stage 6
first=""
rest=""
for name in ${trainings}; do
    case "${name}" in
        none) ;;
        "${start}") first=${name} ;;
        *) rest+=" ${name}" ;;
    esac
done
each "${jobs}" "${first}" pretrain
each "${jobs}" "${rest}" pretrain
"${asr_sh}" "${words[@]:2}" --method supervised --stop_stage 10
each "${jobs}" "${trainings}" recognise --report false --stage 11
recognise "${trainings%% *}" "${seeds%% *}" --stage 13  # all has been scored
