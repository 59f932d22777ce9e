#!/usr/bin/env bash
# Your own speech: run.sh --src DIR, where DIR holds splits train and dev as Kaldi directories, id lists or manifests.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${here}/../../TEMPLATE/ssl/ssl.sh" --recipe "${here}" --corpus kaldi \
    --train_set train --valid_set dev --ssl_config "train_small codes_small" "$@"
