#!/usr/bin/env bash
# Nine utterances of real speech that come with ESPnet: to see that everything works, not for a WER.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${here}/../../TEMPLATE/asr/asr.sh" --recipe "${here}" --corpus mini_an4 \
    --pool_set train_nodev --labelled_share 1.0 --train_set train_lab --unlabelled_set train_unlab \
    --valid_set train_dev --test_sets test \
    --asr_config train_small --token_type char "$@"
