# shellcheck shell=bash
# Sourced: the environment of this recipe's programs; see utils/path.sh.

. ../../utils/path.sh
