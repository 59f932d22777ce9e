#!/usr/bin/env bash
# Synthesised German and Mandarin, made on the spot, and their translation to English: five objectives.
# All four languages, eight objectives: --langs "en de fr zh"
#     --objectives "asr_en asr_de asr_fr asr_zh st_de_en st_fr_en st_zh_en ssl"
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${here}/../../TEMPLATE/st/st.sh" --recipe "${here}" --corpus mini_st \
    --langs "de zh" --objectives "asr_de asr_zh st_de_en st_zh_en ssl" \
    --st_config train_small --token_type char --st_token_type word "$@"
