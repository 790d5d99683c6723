#!/usr/bin/env bash
# Stage 1: data directories of the IAM On-Line Handwriting Database.
set -euo pipefail
corpus=         # the corpus
out=data        # output directory of train, valid and test
division=graves # graves or t1
clip=           # bound of offsets, or empty
leave_out=      # names of lines
. utils/parse_options.sh

exec python local/prepare.py --corpus "${corpus}" --out "${out}" --division "${division}" \
    ${clip:+--clip "${clip}"} --leave_out "${leave_out}"
