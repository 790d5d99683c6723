# shellcheck shell=bash disable=SC2034
# Sourced: where corpora lie on this machine. A relative path starts at the recipe.

BLIZZARD="${BLIZZARD:-downloads/blizzard2013}" # the English audio books of the Blizzard Challenge 2013, packed or not
