# shellcheck shell=bash disable=SC2034
# Sourced: paths of corpora. Relative paths start at the recipe.

LIBRISPEECH="${LIBRISPEECH:-downloads}" # is or contains LibriSpeech/; missing sets are downloaded to it
