# shellcheck shell=bash disable=SC2034
# Sourced: the environment of this recipe's programs; see utils/path.sh.

setup_arguments=()
. ../../utils/path.sh
