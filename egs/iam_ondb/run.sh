#!/usr/bin/env bash
# IAM On-Line Handwriting Database: pen strokes of lines of text, source B's third data set. Registration is needed;
# set its path in db.sh. `bash run.sh --help` lists the options.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. utils/options.sh
. ./db.sh

# Changed defaults, and the recipe's own options.
iam_ondb="${IAM_ONDB}" # directory of the corpus; relative paths start at the recipe
data_root=""           # the same, under a name shared by all recipes
division=graves        # graves: test on his validation set, train on the rest; t1: the task's own sets
clip=""                # clip offsets to this many units of the whiteboard; empty: no clipping
leave_out=""           # lines of damaged files to leave out, e.g. "a01-000u-01 a01-000u-02"
sample_frames=700      # length of generated samples in pen points, about one line of the corpus
prefix_frames=200      # length of the real line before a continuation in pen points
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
