#!/usr/bin/env bash
# Capacities of a transport network, by BLOCC: run.sh [--network nine_node] [--gamma 4] [--methods "blocc lv_hba"]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${here}/../../TEMPLATE/bilevel/bilevel.sh" --recipe "${here}" --problem transport \
    --instance_option network --instance three_node --src "${here}/networks" "$@"
