#!/usr/bin/env bash
# English read by Mandarin natives, half of them children; pre-training on the audio of the training set.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${here}/../../TEMPLATE/ssl/ssl.sh" --recipe "${here}" --corpus speechocean762 \
    --train_set train --valid_set dev --ssl_config "train_small codes_small" "$@"
