# shellcheck shell=bash disable=SC2034
# Sourced: where corpora lie on this machine. A relative path starts at the recipe.

LIBRILIGHT="${LIBRILIGHT:-downloads}"                   # holds librispeech_finetuning/, or is it; downloaded if missing
LIBRISPEECH="${LIBRISPEECH:-../librispeech/downloads}" # holds LibriSpeech/, or is it; missing sets are downloaded to it
