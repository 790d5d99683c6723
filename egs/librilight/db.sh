# shellcheck shell=bash disable=SC2034
# Sourced: paths of corpora. Relative paths start at the recipe.

LIBRILIGHT="${LIBRILIGHT:-downloads}"                   # is or contains librispeech_finetuning/; downloaded if missing
LIBRISPEECH="${LIBRISPEECH:-../librispeech/downloads}" # is or contains LibriSpeech/; missing sets are downloaded to it
