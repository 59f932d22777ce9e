#!/usr/bin/env bash
# Your own data: run.sh --src DIR, where DIR holds splits train, dev and test as Kaldi directories, id lists or manifests.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${here}/../../TEMPLATE/asr/asr.sh" --recipe "${here}" --corpus kaldi \
    --pool_set train --labelled_share 1.0 --train_set train_lab --unlabelled_set train_unlab \
    --valid_set dev --test_sets test --asr_config train_small --token_type bpe --nbpe 100 "$@"
