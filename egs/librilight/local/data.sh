#!/usr/bin/env bash
# Stage 1: data directories of Libri-Light's fine-tuning subset and of LibriSpeech's test sets.
set -euo pipefail
finetuning=  # the fine-tuning subset
corpus=      # LibriSpeech
out=data     # output directory of the sets
hours=10h    # training set: 10h, 1h or 10min
test_sets="" # sets to score; empty: all
nj=2         # number of threads that read
max_bad=0 # audio files that may be rejected
. utils/parse_options.sh

exec python local/prepare.py --finetuning "${finetuning}" --corpus "${corpus}" --out "${out}" --hours "${hours}" \
    --test_sets "${test_sets}" --nj "${nj}" --max_bad "${max_bad}"
