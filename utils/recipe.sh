#!/usr/bin/env bash
# Sourced by every template: python, options, configurations, and what runs a stage.
# The options of a script are the variables that it sets between sourcing this file and its usage().
# shellcheck disable=SC2034,SC2154  # the sourcing script reads variables of this file, and sets others

template=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)
script=${template}/$(basename "${BASH_SOURCE[1]}")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
caller=${PWD}
python=python3
if [ -x "${root}/.venv/bin/python" ]; then python=${root}/.venv/bin/python; fi

option_lines() { sed -n '/recipe\.sh"$/,/^usage()/{/^[a-z_]*=/p}' "${script}"; }
list_options() { option_lines | sed 's/^\([a-z_]*\)=\([^#]*\)#* *\(.*\)/  --\1 [\2] \3/;s/ *\]/]/'; }
mapfile -t option_names < <(option_lines | sed 's/=.*//')

parse_options() {  # sets the options from `--name value` or `--name=value`; dashes count as underscores
    local option taken
    while [ $# -gt 0 ]; do
        if [ "$1" = --help ] || [ "$1" = -h ]; then usage && exit 0; fi
        if [[ $1 == --*=* ]]; then set -- "${1%%=*}" "${1#*=}" "${@:2}"; fi
        option=${1#--}
        option=${option//-/_}
        taken=2
        if [[ $1 != --* || " ${option_names[*]} " != *" ${option} "* ]]; then
            unknown_option "$@"
        elif [ $# -lt 2 ]; then
            echo "error: $1 needs a value" >&2 && exit 2
        else
            printf -v "${option}" '%s' "$2"
        fi
        shift "${taken}"
    done
}
unknown_option() {  # the words from it on; a script that passes options on replaces this and says how many it takes
    local near
    near=$("${python}" -c 'import difflib, sys; print(difflib.get_close_matches(sys.argv[1], sys.argv[2:], 1, 0)[0])' \
        "${option}" "${option_names[@]}")
    echo "error: unknown option $1; the nearest one is --${near} (--help lists all)" >&2
    exit 2
}

split() {  # name of an array, text: its words; unlike `read`, over several lines
    read -r -d '' -a "$1" <<<"$2" || true
}
is_true() {  # option, value
    if [[ $2 != true && $2 != false ]]; then echo "error: $1 $2: expected true or false" >&2 && exit 2; fi
    [ "$2" = true ]
}
from_caller() {  # realpath's -e or -m, options: their paths are seen from the caller's folder, others from the recipe's
    local name path
    for name in "${@:2}"; do
        if [ -z "${!name}" ]; then continue; fi
        path=$(cd "${caller}" && realpath "$1" -- "${!name}" 2>/dev/null) ||
            { echo "error: --${name} ${!name}: no such file or folder, seen from ${caller}" >&2 && exit 1; }
        printf -v "${name}" '%s' "${path}"
    done
}
find_config() {
    local name=${1%.yaml}.yaml file
    for file in "${name}" "${recipe}/conf/${name}" "${template}/conf/${name}"; do
        if [ -f "${file}" ]; then realpath -- "${file}" && return; fi
    done
    echo "error: no configuration ${name} here, in ${recipe}/conf or in ${template}/conf" >&2
    return 1
}
collect_configs() {  # the template's, names on top: sets configs (options) and config (part of an experiment's name)
    local name file
    configs=(--config "${template}/conf/$1.yaml")
    config=
    for name in $2; do
        file=$(find_config "${name}")
        configs+=(--config "${file}")
        config+=_$(basename "${file}" .yaml)
    done
    config=${config:-_$1}
}
enter_recipe() {
    echo "cd $(printf %q "${recipe}")  # every command below runs here"
    cd "${recipe}" || exit
    export PYTHONPATH=${root}${PYTHONPATH:+:${PYTHONPATH}}
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
}

begins() { [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ] && echo "== stage $1: $2"; }
run() {  # one stage is one plain command, printed so that it can be copied
    printf '%q ' "${python}" -m "bilevel.bin.$1" "${@:2}"
    echo
    "${python}" -m "bilevel.bin.$1" "${@:2}"
}
each() {  # jobs at a time, names, function, further arguments: calls it for every name and seed; fails if one failed
    local failed=0 running=0 name seed
    for seed in ${seeds}; do
        for name in $2; do
            if [ "${running}" -ge "$1" ]; then wait -n || failed=1; else running=$((running + 1)); fi
            # In the background a shell ignores interrupts, and so would the training.
            { trap - INT; "$3" "${name}" "${seed}" "${@:4}"; } </dev/null &
        done
    done
    for ((; running > 0; running--)); do wait -n || failed=1; done
    return "${failed}"
}
