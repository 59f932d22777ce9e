#!/usr/bin/env bash
# Soft-margin caps of a support vector machine, by BLOCC and its baselines: run.sh [--dataset fourclass] [--src DIR]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${here}/../../TEMPLATE/bilevel/bilevel.sh" --recipe "${here}" --problem svm \
    --instance_option dataset --instance diabetes \
    --src "${here}/downloads" --download \
    --methods "blocc no_multipliers lv_hba gam grid random" --seeds "0 1 2 3 4 5 6 7 8 9" "$@"
