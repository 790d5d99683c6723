#!/usr/bin/env bash
# Libri-Light's fine-tuning subset: the systems of source A's Table 2 trained on 10 hours of read speech at 16 kHz, scored
# on LibriSpeech's test sets. Stage 0 downloads what is missing. `bash run.sh --help` lists the options.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. utils/options.sh
. ./db.sh

# The recipe's own options.
librilight="${LIBRILIGHT}"   # the directory librispeech_finetuning, or the one above it
librispeech="${LIBRISPEECH}" # the directory LibriSpeech, or the one above it; relative paths start at the recipe
data_root="" # the directory that contains both, under a name shared by all recipes
hours=10h    # training set: 10h, 1h or 10min
test_sets="" # sets to score, of dev_clean dev_other test_clean test_other; empty: all
max_bad=0 # maximum number of unusable audio files, which are left out and listed in data/rejected.tsv
. utils/parse_options.sh
. utils/log.sh

case "${hours}" in
10h | 1h | 10min) ;;
*)
    die "--hours '${hours}': expected 10h, 1h or 10min (--help lists the options)" 2
    ;;
esac
train_set="train_${hours}"
valid_set=valid
known_sets="dev_clean dev_other test_clean test_other"
for set in ${test_sets:=${known_sets}}; do
    [[ " ${known_sets} " == *" ${set} "* ]] ||
        die "--test_sets: unknown '${set}'; expected: ${known_sets} (--help lists the options)" 2
done

corpora=(--finetuning "${data_root:-${librilight}}" --corpus "${data_root:-${librispeech}}")
download_args=("${corpora[@]}" --sets "${test_sets}")
data_args=("${corpora[@]}" --out "${datadir}" --hours "${hours}" --test_sets "${test_sets}" --nj "${nj}" --max_bad "${max_bad}")

. utils/stages.sh
