#!/usr/bin/env bash
# Stage 1: data directories of the audio books, and their audio at 16 kHz.
set -euo pipefail
corpus=  # the corpus
out=data # where train, valid and test are made, and audio
jobs=2   # recordings that are converted side by side
max_bad=0 # audio files that may be rejected
. utils/parse_options.sh

exec python local/prepare.py --corpus "${corpus}" --out "${out}" --jobs "${jobs}" --max_bad "${max_bad}"
