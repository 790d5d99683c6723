#!/usr/bin/env bash
# Stage 1: data directories of the corpus.
set -euo pipefail
corpus=  # the corpus
out=data # where the sets are made
. ../../utils/parse_options.sh

exec python local/prepare.py --corpus "${corpus}" --out "${out}"
