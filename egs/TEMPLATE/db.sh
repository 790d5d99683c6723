# shellcheck shell=bash disable=SC2034
# Sourced: path of the corpus. Relative paths start at the recipe.

CORPUS="${CORPUS:-downloads/corpus}" # FILL IN: what this directory must contain
