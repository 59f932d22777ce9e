#!/usr/bin/env bash
# Synthesised speech, made on the spot; nothing to download.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${here}/../../TEMPLATE/asr/asr.sh" --recipe "${here}" --corpus mini \
    --train_set train_lab --unlabelled_set train_unlab --valid_set dev --test_sets test \
    --asr_config "train_small train_mini" --token_type char "$@"
