#!/usr/bin/env bash
# Stage 1: data directories of a folder of audio files.
set -euo pipefail
wav_dir=       # the folder
out=data       # where train, valid and test are made, and audio with what had to be converted
dumpdir=dump   # not searched for audio
expdir=exp     # not searched either: samples of models lie there
rate_hz=       # resample to this rate; empty: the files' own
channel=mix    # mix, or the number of a channel from 0
speakers=none  # folder, prefix or none
split=random   # random or speaker
valid_size=0.1 # share of the files or speakers, or how many
test_size=0.1  # the same for the test set
. ../../utils/parse_options.sh

exec python local/prepare.py --wav_dir "${wav_dir}" --out "${out}" --apart "${dumpdir}" "${expdir}" \
    ${rate_hz:+--rate_hz "${rate_hz}"} --channel "${channel}" --speakers "${speakers}" --split "${split}" \
    --valid_size "${valid_size}" --test_size "${test_size}"
