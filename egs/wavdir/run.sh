#!/usr/bin/env bash
# Any folder of audio files: bash run.sh --wav_dir DIR. Needs no annotations. `bash run.sh --help` lists the options.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. utils/options.sh
. ./db.sh

# Changed defaults, and the recipe's own options.
codings="mulaw-pcm"   # bits of the PCM signal in addition to bits of mu-law codes
wav_dir="${WAV_DIR}"  # folder of audio files, searched recursively; relative paths start at the recipe
data_root=""          # the same, under a name shared by all recipes
rate_hz=""            # resample to this rate; empty: keep the rate, which all files must share
channel=""            # channel of files with several: its number from 0, or mix (the mean); empty: all files must be mono
bits=""               # 16: round other formats (24-bit, float, mu-law, MP3) to 16-bit integers; empty: all files must be 16-bit
clip=false            # true: clip samples beyond full scale, which float and MP3 files can have
allow_streamed=false  # true: accept files whose headers lack the number of samples, as written to pipes
max_bad=0             # maximum number of unusable audio files, which are left out and listed in data/rejected.tsv
speakers=none         # speaker of a file: folder (the name of its folder), prefix (its name up to '-' or '_'), or none
split=random          # how sets are drawn: single files (random), or whole speakers (speaker)
valid_size=0.1        # fraction of the files (or speakers) in the validation set, or their number (20)
test_size=0.1         # the same for the test set
prefix_seconds=0.5    # duration of the real audio before a continuation in seconds; files must be as long
segment_frames=320000 # cut longer files into pieces of this many frames (20 s at 16 kHz)
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
