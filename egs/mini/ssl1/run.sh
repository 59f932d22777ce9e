#!/usr/bin/env bash
# Synthesised speech, made on the spot; nothing to download.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${here}/../../TEMPLATE/ssl/ssl.sh" --recipe "${here}" --corpus mini \
    --train_set train_unlab --valid_set dev --ssl_config "train_small codes_small" "$@"
