#!/usr/bin/env bash
# Stage 1: data directories of festvox-ru.
set -euo pipefail
corpus=   # folder of the voice, or one above it
out=data  # output directory of train, valid and test
max_bad=0 # audio files that may be rejected
. utils/parse_options.sh

exec python local/prepare.py --corpus "${corpus}" --out "${out}" --max_bad "${max_bad}"
