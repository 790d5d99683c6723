#!/usr/bin/env bash
# Stage 1: data directories of a folder of audio files.
set -euo pipefail
wav_dir=       # the folder
out=data       # output directory of train, valid and test, and of audio that had to be converted
dumpdir=dump   # not searched for audio
expdir=exp     # not searched either: contains samples of models
rate_hz=       # resample to this rate; empty: the files' own
channel=       # number of a channel from 0, or mix; empty: all files must be mono
bits=          # 16: round other formats to 16-bit integers
clip=false     # true: clip samples beyond full scale
allow_streamed=false # true: accept headers without the number of samples
max_bad=0      # audio files that may be rejected
speakers=none  # folder, prefix or none
split=random   # random or speaker
valid_size=0.1 # fraction of the files or speakers, or their number
test_size=0.1  # the same for the test set
. utils/parse_options.sh

exec python local/prepare.py --wav_dir "${wav_dir}" --out "${out}" --apart "${dumpdir}" "${expdir}" \
    ${rate_hz:+--rate_hz "${rate_hz}"} ${channel:+--channel "${channel}"} ${bits:+--bits "${bits}"} --clip "${clip}" \
    --allow_streamed "${allow_streamed}" --max_bad "${max_bad}" --speakers "${speakers}" --split "${split}" \
    --valid_size "${valid_size}" --test_size "${test_size}"
