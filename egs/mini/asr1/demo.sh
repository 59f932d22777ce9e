#!/usr/bin/env bash
# The main job, end to end: three methods on the same data, with the same number of updates, and their report.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
"${here}/../../TEMPLATE/asr/compare.sh" "${here}/run.sh" --methods "bljust supervised pretrain_finetune" --seeds 0 \
    --jobs "$(($(nproc) < 3 ? $(nproc) : 3))" "$@"
sed -n '/^## Methods/,/^## [^M]/{/^## [^M]/!p}' "${here}/exp/RESULTS.md"
echo "tables: ${here}/exp/RESULTS.md"
echo "report: ${here}/exp/report.html"
