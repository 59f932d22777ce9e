#!/usr/bin/env bash
# Several data directories as sources: run.sh --src POOL, where every folder POOL/<source> holds splits train and dev.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${here}/../../TEMPLATE/ssl/ssl.sh" --recipe "${here}" --corpus multi \
    --train_set train --valid_set dev --ssl_config "train_small codes_small" --resample true "$@"
