#!/usr/bin/env bash
# FILL IN: the name of the data and what they are. `bash run.sh --help` lists the options.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. utils/options.sh
. ./db.sh

# What is different here from the defaults, and the recipe's own options, each with a comment for --help.
corpus="${CORPUS}" # directory of the corpus; a relative path starts at the recipe
data_root=""       # the same, under the name that all recipes share
max_bad=0 # audio files that may be left out as they cannot be used; they are listed in data/rejected.tsv
. utils/parse_options.sh

# FILL IN: the names of the sets that local/prepare.py makes; several test sets are separated by blanks.
train_set=train
valid_set=valid
test_sets="test"

download_args=(--corpus "${data_root:-${corpus}}")
data_args=(--corpus "${data_root:-${corpus}}" --out "${datadir}" --max_bad "${max_bad}")

. utils/stages.sh
