# shellcheck shell=bash disable=SC2034
# Sourced: path of the corpus. Relative paths start at the recipe.

# Debian's package festvox-ru (.deb), a folder it was unpacked in, or the folder of the voice; this one: stage 0 makes it
FESTVOX_RU="${FESTVOX_RU:-downloads/festvox-ru}"
