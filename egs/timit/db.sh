# shellcheck shell=bash disable=SC2034
# Sourced: paths of corpora. Relative paths start at the recipe.

TIMIT="${TIMIT:-downloads/TIMIT}" # the LDC's disc (LDC93S1), in upper or lower case, SPHERE or RIFF
