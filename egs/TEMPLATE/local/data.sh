#!/usr/bin/env bash
# Stage 1: data directories of the corpus.
set -euo pipefail
corpus=  # the corpus
out=data # output directory of the sets
max_bad=0 # audio files that may be rejected
. utils/parse_options.sh

exec python local/prepare.py --corpus "${corpus}" --out "${out}" --max_bad "${max_bad}"
