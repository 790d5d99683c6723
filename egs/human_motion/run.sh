#!/usr/bin/env bash
# Human motion: joint angles of the CMU Graphics Lab's motion capture database (or any ASF/AMC or BVH files) under a
# Gaussian output. Free; stage 0 downloads it, or set its path in db.sh. `bash run.sh --help` lists the options.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. utils/options.sh
. ./db.sh

# Changed defaults, and the recipe's own options.
# shellcheck disable=SC2034 # read by the shared stages
sample_seconds=4   # duration of generated samples in seconds
mocap="${MOCAP}"   # directory with the files, at any depth; relative paths start at the recipe
data_root=""       # the same, under a name shared by all recipes
rate_hz=30         # frames per second to keep; must divide the rate of the recordings
amc_rate_hz=120    # frames per second of AMC files without a rate
mirror=""          # address to download the archive from instead of https://mocap.cs.cmu.edu/
. utils/parse_options.sh

train_set=train
valid_set=valid
test_sets="test"
disjoint=utterances
material=vectors

download_args=(--corpus "${data_root:-${mocap}}" --mirror "${mirror}")
data_args=(--corpus "${data_root:-${mocap}}" --out "${datadir}" --rate_hz "${rate_hz}" --amc_rate_hz "${amc_rate_hz}"
    --nj "${nj}")

. utils/stages.sh
