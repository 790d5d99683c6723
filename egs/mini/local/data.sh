#!/usr/bin/env bash
# Stage 1: data directories, made by TIMIT's preparation.
set -euo pipefail
corpus=data/corpus # corpus in TIMIT's layout
out=data           # output directory of train, valid and test
valid_by=speaker   # speaker or utterance
. utils/parse_options.sh

exec python ../timit/local/prepare.py --corpus "${corpus}" --out "${out}" --expected 240 40 \
    --valid_by "${valid_by}" --valid_speakers 4 --further_phones "aar aor ayax ayr ehr ihr iyax uhr"
