#!/usr/bin/env bash
# AISHELL-1: Mandarin, all of it labelled and, as audio, unlabelled too; characters, so CER counts, not WER.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${here}/../../TEMPLATE/asr/asr.sh" --recipe "${here}" --corpus aishell \
    --pool_set train --labelled_share 1.0 --train_set train_lab --unlabelled_set train_unlab \
    --valid_set dev --test_sets test --asr_config train_bljust_paper --token_type char --metrics "cer wer" --nj 16 "$@"
