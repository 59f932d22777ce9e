#!/usr/bin/env bash
# English read by Mandarin natives, half of them children; speakers of the sets are disjoint.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${here}/../../TEMPLATE/asr/asr.sh" --recipe "${here}" --corpus speechocean762 \
    --pool_set train --labelled_share 0.3 --train_set train_lab --unlabelled_set train_unlab \
    --valid_set dev --test_sets test --same_text warn --asr_config train_small --token_type bpe --nbpe 100 "$@"
