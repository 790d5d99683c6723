#!/usr/bin/env bash
# TIMIT: the systems of the papers' tables on 16 kHz read speech. The corpus is the LDC's (LDC93S1); set its path in
# db.sh. `bash run.sh --help` lists the options.
# shellcheck disable=SC2034 # read by the shared stages
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. utils/options.sh
. ./db.sh

# Changed defaults, and the recipe's own options.
nj=4
codings="mulaw-pcm" # bits of the PCM signal in addition to bits of mu-law codes
timit="${TIMIT}"   # directory of the corpus, with TRAIN, TEST and DOC; relative paths start at the recipe
data_root=""       # the same, under a name shared by all recipes
valid_by=utterance # how the validation set is drawn from the training set: 231 utterances (utterance), or whole speakers (speaker)
sa=keep            # the two sentences that every speaker reads: keep (4 620 + 1 680 utterances) or drop
speaker=FDRW0      # speaker whose phones and durations stage 7 shows; the first one if missing
skip_phones="h# pau epi" # phone labels that stage 7 leaves out: silences, which the paper's figure 3 does not show
max_bad=0 # maximum number of unusable audio files, which are left out and listed in data/rejected.tsv
. utils/parse_options.sh

train_set=train
valid_set=valid
test_sets="test"

download_args=(--corpus "${data_root:-${timit}}")
data_args=(--corpus "${data_root:-${timit}}" --out "${datadir}" --valid_by "${valid_by}" --sa "${sa}" --max_bad "${max_bad}")

. utils/stages.sh
