#!/usr/bin/env bash
# Stage 0: makes the corpus, 28 synthetic voices in the layout of TIMIT; the same bytes on every run.
set -euo pipefail
out=data/corpus # directory of the corpus
. utils/parse_options.sh

exec python local/synthesise.py --out "${out}"
