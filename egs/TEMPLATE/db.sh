# shellcheck shell=bash disable=SC2034
# Sourced: where the corpus lies on this machine. A relative path starts at the recipe.

CORPUS="${CORPUS:-downloads/corpus}" # FILL IN: what has to be in this directory
