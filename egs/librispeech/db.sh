# shellcheck shell=bash disable=SC2034
# Sourced: where corpora lie on this machine. A relative path starts at the recipe.

LIBRISPEECH="${LIBRISPEECH:-downloads}" # holds LibriSpeech/, or is it; sets that are missing are downloaded to it
