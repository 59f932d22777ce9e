#!/usr/bin/env bash
# YODAS: 5,000 h of English videos (en000; up to 500 GB of shards, which are never unpacked), its first shard for validation.
# More, for instance 10,000 h: --train_set en000_1-+en001. A try on a few MB: --train_set ba000 --valid_set bm000.
# YODAS2 (24 kHz, videos uncut): --corpus yodas2 --resample true.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${here}/../../TEMPLATE/ssl/ssl.sh" --recipe "${here}" --corpus yodas \
    --train_set en000_1- --valid_set en000_0 --max_bad_share 0.05 --nj 16 "$@"
