#!/usr/bin/env bash
# TED-LIUM release 2: all of it labelled and, as audio, unlabelled too.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${here}/../../TEMPLATE/asr/asr.sh" --recipe "${here}" --corpus tedlium \
    --pool_set train --labelled_share 1.0 --train_set train_lab --unlabelled_set train_unlab \
    --valid_set dev --test_sets test --punctuation keep --max_sec 35 \
    --asr_config train_bljust_paper --token_type bpe --nbpe 1000 --nj 16 "$@"
