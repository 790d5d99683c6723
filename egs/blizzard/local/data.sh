#!/usr/bin/env bash
# Stage 1: data directories of the audiobooks, and their audio at 16 kHz.
set -euo pipefail
corpus=  # the corpus
out=data # output directory of train, valid and test, and of audio
jobs=2   # recordings that are converted in parallel
max_bad=0 # audio files that may be rejected
. utils/parse_options.sh

exec python local/prepare.py --corpus "${corpus}" --out "${out}" --jobs "${jobs}" --max_bad "${max_bad}"
