#!/usr/bin/env bash
# CoVoST 2, the set-up of Objective Soups: recognition of five languages, translation of four to English, CPC on all.
# --src DIR has the clips of Common Voice and the tables.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${here}/../../TEMPLATE/st/st.sh" --recipe "${here}" --corpus covost2 --langs "en fr de es ca" \
    --objectives "asr_en asr_fr asr_de asr_es asr_ca st_fr_en st_de_en st_es_en st_ca_en ssl" \
    --nbpe 1000 --st_nbpe 1000 --resample true --nj 16 "$@"
