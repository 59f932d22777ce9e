#!/usr/bin/env bash
# 100 h labelled, 960 h unlabelled, as in the low-resource experiments of the BL-JUST papers.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${here}/../../TEMPLATE/asr/asr.sh" --recipe "${here}" --corpus librispeech \
    --train_set train_clean_100 --unlabelled_set train_960 --valid_set dev_clean \
    --test_sets "dev_other test_clean test_other" --punctuation keep --max_sec 35 \
    --asr_config train_bljust_paper --token_type bpe --nbpe 1000 --nj 16 "$@"
