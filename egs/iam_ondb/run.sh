#!/usr/bin/env bash
# IAM On-Line Handwriting Database: pen strokes of lines of text, source B's third data set. Registration is needed;
# db.sh says where it lies. `bash run.sh --help` lists the options.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. utils/options.sh
. ./db.sh

# What is different here from the defaults, and the recipe's own options.
iam_ondb="${IAM_ONDB}" # directory of the corpus; a relative path starts at the recipe
data_root=""           # the same, under the name that all recipes share
division=graves        # graves: test on his validation set, all else for training; t1: the task's own sets
clip=""                # bound offsets by so many units of the whiteboard; empty: keep them as they are
leave_out=""           # lines of damaged files, as "a01-000u-01 a01-000u-02"
sample_frames=700      # pen points of what stage 5 generates; a line of the corpus has about as many
prefix_frames=200      # pen points of a real line that a continuation begins with
. utils/parse_options.sh

train_set=train
valid_set=valid
test_sets="test"
disjoint=utterances
material=vectors
sample_args=(--frames "${sample_frames}" --prefix_frames "${prefix_frames}" --count 6)

download_args=(--corpus "${data_root:-${iam_ondb}}")
data_args=(--corpus "${data_root:-${iam_ondb}}" --out "${datadir}" --division "${division}" --clip "${clip}"
    --leave_out "${leave_out}")

. utils/stages.sh
