# shellcheck shell=bash disable=SC2034
# Sourced: where corpora lie on this machine. A relative path starts at the recipe.

TIMIT="${TIMIT:-downloads/TIMIT}" # the LDC's disc (LDC93S1), in upper or lower case, SPHERE or RIFF
