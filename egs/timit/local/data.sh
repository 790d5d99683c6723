#!/usr/bin/env bash
# Stage 1: data directories of TIMIT.
set -euo pipefail
corpus=            # the corpus
out=data           # output directory of train, valid and test
valid_by=utterance # speaker or utterance
sa=keep            # keep or drop
max_bad=0 # audio files that may be rejected
. utils/parse_options.sh

exec python local/prepare.py --corpus "${corpus}" --out "${out}" --valid_by "${valid_by}" --sa "${sa}" --max_bad "${max_bad}"
