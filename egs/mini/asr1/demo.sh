#!/usr/bin/env bash
# The main job, end to end: three methods on the same data, with the same number of updates, and their report.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
for method in supervised pretrain_finetune bljust; do
    "${here}/run.sh" --method "${method}" "$@"
done
echo
sed -n '/^## Methods/,/^## /{/^## [^M]/!p}' "${here}/exp/RESULTS.md"
echo "tables: ${here}/exp/RESULTS.md"
echo "report: ${here}/exp/report.html"
