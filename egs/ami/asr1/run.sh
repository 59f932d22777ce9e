#!/usr/bin/env bash
# AMI meetings: headsets and the distant microphone together, all of it labelled and, as audio, unlabelled too.
# One kind alone: --pool_set ihm_train --valid_set ihm_dev --test_sets ihm_eval. mdm_* needs files by Kaldi's beamformer.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${here}/../../TEMPLATE/asr/asr.sh" --recipe "${here}" --corpus ami \
    --pool_set ihm_sdm_train --labelled_share 1.0 --train_set train_lab --unlabelled_set train_unlab \
    --valid_set ihm_sdm_dev --test_sets "ihm_eval sdm_eval" --punctuation keep --max_sec 35 \
    --asr_config train_bljust_paper --token_type bpe --nbpe 1000 --nj 16 "$@"
