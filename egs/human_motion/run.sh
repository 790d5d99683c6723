#!/usr/bin/env bash
# Human motion: joint angles of the CMU Graphics Lab's motion capture database (or any ASF/AMC or BVH files) under a
# Gaussian output. Free; stage 0 gets it, or db.sh says where it lies. `bash run.sh --help` lists the options.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. utils/options.sh
. ./db.sh

# What is different here from the defaults, and the recipe's own options.
# shellcheck disable=SC2034 # read by the shared stages
sample_seconds=4   # length of what stage 5 generates
mocap="${MOCAP}"   # directory with the files, at any depth; a relative path starts at the recipe
data_root=""       # the same, under the name that all recipes share
rate_hz=30         # frames per second that are kept; a whole part of the recordings' own
amc_rate_hz=120    # frames per second of AMC files that do not say it
mirror=""          # where to get the archive instead of https://mocap.cs.cmu.edu/
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
