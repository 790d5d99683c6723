#!/usr/bin/env bash
# Blizzard Challenge 2013: source B's systems on half-second segments of audio books of one reader. The corpus needs a
# licence; db.sh says where it lies. `bash run.sh --help` lists the options.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. utils/options.sh
. ./db.sh

# What is different here from the defaults, and the recipe's own options.
nj=4
blizzard="${BLIZZARD}" # directory of the corpus, with archives or what was in them; a relative path starts at the recipe
data_root=""           # the same, under the name that all recipes share
max_bad=0 # audio files that may be left out as they cannot be used; they are listed in data/rejected.tsv
. utils/parse_options.sh

train_set=train
valid_set=valid
test_sets="test"
disjoint=utterances

download_args=(--corpus "${data_root:-${blizzard}}")
data_args=(--corpus "${data_root:-${blizzard}}" --out "${datadir}" --jobs "${nj}" --max_bad "${max_bad}")
dump_args=(--segment_frames 8000) # half a second

. utils/stages.sh
