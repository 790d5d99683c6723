# shellcheck shell=bash disable=SC2034
# Sourced: paths of corpora. Relative paths start at the recipe.

BLIZZARD="${BLIZZARD:-downloads/blizzard2013}" # the English audiobooks of the Blizzard Challenge 2013, packed or not
