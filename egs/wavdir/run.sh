#!/usr/bin/env bash
# Any folder of audio files: bash run.sh --wav_dir DIR. Needs no annotations. `bash run.sh --help` lists the options.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. utils/options.sh
. ./db.sh

# What is different here from the defaults, and the recipe's own options.
codings="mulaw-pcm"   # bits of the PCM signal beside bits of mu-law codes
wav_dir="${WAV_DIR}"  # folder of audio files, with all folders below it; a relative path starts at the recipe
data_root=""          # the same, under the name that all recipes share
rate_hz=""            # resample to this rate; empty: the files' own, which must be one
channel=""            # of files with several channels: the number of one, from 0, or mix (their mean); empty: none may have
bits=""               # 16: round what is not 16-bit integers (24-bit, float, mu-law, MP3) to that; empty: none may be
clip=false            # true: clip what is beyond full scale, as float and MP3 can be
allow_streamed=false  # true: believe that files are whole whose headers lack the number of samples, as written into pipes
max_bad=0             # audio files that may be left out as they cannot be used; they are listed in data/rejected.tsv
speakers=none         # who speaks: folder (the name of a file's folder), prefix (its name up to '-' or '_'), or none
split=random          # how sets are drawn: single files (random), or whole speakers (speaker)
valid_size=0.1        # share of the files (or speakers) that become the validation set, or how many (20)
test_size=0.1         # the same for the test set
prefix_seconds=0.5    # length of real audio before a continuation; files must have it
segment_frames=320000 # longer files are cut into pieces of so many frames (20 s at 16 kHz)
. utils/parse_options.sh

train_set=train
valid_set=valid
test_sets="test"
disjoint=utterances

download_args=(--wav_dir "${data_root:-${wav_dir}}")
data_args=(--wav_dir "${data_root:-${wav_dir}}" --out "${datadir}" --dumpdir "${dumpdir}" --expdir "${expdir}"
    --rate_hz "${rate_hz}" --channel "${channel}" --bits "${bits}"
    --clip "${clip}" --allow_streamed "${allow_streamed}" --max_bad "${max_bad}" --speakers "${speakers}" --split "${split}"
    --valid_size "${valid_size}" --test_size "${test_size}")
dump_args=(--segment_frames "${segment_frames}")
sample_args=(--prefix_seconds "${prefix_seconds}")

. utils/stages.sh
