#!/usr/bin/env bash
# FILL IN: the name of the data and what they are. `bash run.sh --help` lists the options.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. utils/options.sh
. ./db.sh

# Changed defaults, and the recipe's own options, each with a comment for --help.
corpus="${CORPUS}" # directory of the corpus; relative paths start at the recipe
data_root=""       # the same, under a name shared by all recipes
max_bad=0 # maximum number of unusable audio files, which are left out and listed in data/rejected.tsv
. utils/parse_options.sh

# FILL IN: the names of the sets that local/prepare.py makes; several test sets are separated by blanks.
train_set=train
valid_set=valid
test_sets="test"

download_args=(--corpus "${data_root:-${corpus}}")
data_args=(--corpus "${data_root:-${corpus}}" --out "${datadir}" --max_bad "${max_bad}")

. utils/stages.sh
