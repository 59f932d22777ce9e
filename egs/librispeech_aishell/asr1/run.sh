#!/usr/bin/env bash
# English of LibriSpeech (960 h) and Mandarin of AISHELL-1, by characters; --src DIR has folders librispeech and aishell.
# Mandarin has no blanks: look at its CER, not at its WER.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${here}/../../TEMPLATE/st/st.sh" --recipe "${here}" --corpus librispeech_aishell \
    --langs "en zh" --objectives "asr_en asr_zh ssl" --punctuation keep --max_sec 35 \
    --token_type char --nj 16 "$@"
