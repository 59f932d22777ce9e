#!/usr/bin/env bash
# AMI meetings: pre-training on the audio of headsets and the distant microphone; --train_set ihm_train for headsets alone.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${here}/../../TEMPLATE/ssl/ssl.sh" --recipe "${here}" --corpus ami \
    --train_set ihm_sdm_train --valid_set ihm_sdm_dev --max_sec 35 --nj 16 "$@"
