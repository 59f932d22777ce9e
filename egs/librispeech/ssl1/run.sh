#!/usr/bin/env bash
# LibriSpeech: pre-training on all 960 h without their text, validated on dev-clean and dev-other, as ESPnet does.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${here}/../../TEMPLATE/ssl/ssl.sh" --recipe "${here}" --corpus librispeech \
    --train_set train_960 --valid_set dev --nj 16 "$@"
