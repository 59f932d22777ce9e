#!/usr/bin/env bash
# Mboshi, three speakers, with French translations; --src DIR is the repository. mb_test is its dev, for it has no test.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${here}/../../TEMPLATE/st/st.sh" --recipe "${here}" --corpus mboshi_french \
    --langs mb --objectives "asr_mb st_mb_fr ssl" --max_missing_share 0.03 \
    --token_type char --st_token_type bpe --st_nbpe 1000 "$@"
