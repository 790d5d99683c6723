#!/usr/bin/env bash
# Stage 1: data directories of motion capture files.
set -euo pipefail
corpus=         # the files
out=data        # output directory of train, valid and test
rate_hz=30      # frames per second to keep
amc_rate_hz=120 # frames per second of AMC files
nj=1            # number of processes that read
. utils/parse_options.sh

exec python local/prepare.py --corpus "${corpus}" --out "${out}" --rate_hz "${rate_hz}" \
    --amc_rate_hz "${amc_rate_hz}" --nj "${nj}"
