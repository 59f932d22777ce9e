#!/usr/bin/env bash
# Sourced. Sets the variables named in ${option_names} from `--name value` pairs; dashes count as underscores.
# Needs: option_names (array), usage (function), python (an interpreter).
# shellcheck disable=SC2154  # the caller sets them

while [ $# -gt 0 ]; do
    case "$1" in
        --help | -h)
            usage
            exit 0
            ;;
        --*=*)
            option_value=${1#*=}
            option=${1%%=*}
            set -- "${option}" "${option_value}" "${@:2}"
            continue
            ;;
    esac
    option=${1#--}
    option=${option//-/_}
    if [[ $1 != --* || " ${option_names[*]} " != *" ${option} "* ]]; then
        near=$("${python}" -c 'import difflib, sys; print(difflib.get_close_matches(*sys.argv[1:2], sys.argv[2:], 1, 0)[0])' \
            "${option}" "${option_names[@]}")
        echo "error: unknown option $1; the nearest one is --${near} (--help lists all)" >&2
        exit 2
    fi
    if [ $# -lt 2 ]; then
        echo "error: $1 needs a value" >&2
        exit 2
    fi
    printf -v "${option}" '%s' "$2"
    shift 2
done
