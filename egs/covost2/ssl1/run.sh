#!/usr/bin/env bash
# CoVoST 2: pre-training on the clips of all 22 languages; --src DIR has the clips of Common Voice and the tables.
# Some languages alone: --train_set fr_train --valid_set fr_dev, or --allow_partial true with what there is in DIR.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${here}/../../TEMPLATE/ssl/ssl.sh" --recipe "${here}" --corpus covost2 \
    --train_set all_train --valid_set all_dev --resample true --nj 16 "$@"
