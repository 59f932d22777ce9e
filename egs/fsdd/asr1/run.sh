#!/usr/bin/env bash
# Spoken digits of six speakers (--src DIR uses a local copy). Speakers repeat words by design.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${here}/../../TEMPLATE/asr/asr.sh" --recipe "${here}" --corpus fsdd \
    --pool_set train --labelled_share 0.1 --train_set train_lab --unlabelled_set train_unlab \
    --valid_set dev --test_sets test --same_text warn --resample true --asr_config train_small --token_type word "$@"
