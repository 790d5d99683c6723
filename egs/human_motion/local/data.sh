#!/usr/bin/env bash
# Stage 1: data directories of motion capture files.
set -euo pipefail
corpus=         # the files
out=data        # where train, valid and test are made
rate_hz=30      # frames per second that are kept
amc_rate_hz=120 # frames per second of AMC files
nj=1            # processes that read
. utils/parse_options.sh

exec python local/prepare.py --corpus "${corpus}" --out "${out}" --rate_hz "${rate_hz}" \
    --amc_rate_hz "${amc_rate_hz}" --nj "${nj}"
