# shellcheck shell=bash disable=SC2034
# Sourced: how jobs are run. local is this machine; see utils/cmd.sh.

cmd_backend=local
. ../../utils/cmd.sh
