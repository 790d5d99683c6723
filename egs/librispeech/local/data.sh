#!/usr/bin/env bash
# Stage 1: data directories of LibriSpeech or Mini LibriSpeech.
set -euo pipefail
corpus=      # the corpus
out=data     # output directory of the sets
subset=full  # full or mini
test_sets="" # sets to score; empty: all
nj=2         # number of threads that read
max_bad=0 # audio files that may be rejected
. utils/parse_options.sh

exec python local/prepare.py --corpus "${corpus}" --out "${out}" --subset "${subset}" --test_sets "${test_sets}" \
    --nj "${nj}" --max_bad "${max_bad}"
