#!/usr/bin/env bash
# Blizzard Challenge 2013: source B's systems on half-second segments of audiobooks of one reader. The corpus needs a
# licence; set its path in db.sh. `bash run.sh --help` lists the options.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. utils/options.sh
. ./db.sh

# Changed defaults, and the recipe's own options.
nj=4
blizzard="${BLIZZARD}" # directory of the corpus, with the archives or their contents; relative paths start at the recipe
data_root=""           # the same, under a name shared by all recipes
max_bad=0 # maximum number of unusable audio files, which are left out and listed in data/rejected.tsv
. utils/parse_options.sh

train_set=train
valid_set=valid
test_sets="test"
disjoint=utterances

download_args=(--corpus "${data_root:-${blizzard}}")
data_args=(--corpus "${data_root:-${blizzard}}" --out "${datadir}" --jobs "${nj}" --max_bad "${max_bad}")
dump_args=(--segment_frames 8000) # half a second

. utils/stages.sh
