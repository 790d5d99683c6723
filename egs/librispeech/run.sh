#!/usr/bin/env bash
# LibriSpeech: the systems of source A's Table 2 trained on 100 hours of read speech at 16 kHz (egs/librilight: on 10).
# Stage 0 downloads what is missing. `bash run.sh --help` lists the options.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. utils/options.sh
. ./db.sh

# The recipe's own options.
librispeech="${LIBRISPEECH}" # the directory LibriSpeech, or the one above it; relative paths start at the recipe
data_root="" # the same, under a name shared by all recipes
subset=full  # full: train-clean-100 and the four test sets, 7.7 GB to download; mini: Mini LibriSpeech, 0.5 GB
test_sets="" # sets to score, of dev_clean dev_other test_clean test_other; empty: all
# shellcheck disable=SC2034 # read by the shared stages
probe_minutes="10 60" # minutes of labelled speech to train probes on; all: the whole training set, which stage 6 then extracts
mirror=""    # address to download from instead of https://www.openslr.org/resources/
max_bad=0 # maximum number of unusable audio files, which are left out and listed in data/rejected.tsv
. utils/parse_options.sh
. utils/log.sh

case "${subset}" in
full)
    train_set=train_clean_100
    valid_set=valid_clean_100
    known_sets="dev_clean dev_other test_clean test_other"
    ;;
mini)
    train_set=train_clean_5
    valid_set=valid_clean_5
    known_sets="dev_clean_2"
    ;;
*)
    die "--subset '${subset}': expected full or mini (--help lists the options)" 2
    ;;
esac
for set in ${test_sets:=${known_sets}}; do
    [[ " ${known_sets} " == *" ${set} "* ]] ||
        die "--test_sets: unknown '${set}'; expected: ${known_sets} (--help lists the options)" 2
done

corpus="${data_root:-${librispeech}}"
download_args=(--corpus "${corpus}" --sets "${train_set} ${test_sets}" --mirror "${mirror}")
data_args=(--corpus "${corpus}" --out "${datadir}" --subset "${subset}" --test_sets "${test_sets}" --nj "${nj}" --max_bad "${max_bad}")

. utils/stages.sh
