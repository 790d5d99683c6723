# shellcheck shell=bash disable=SC2034
# Sourced: where jobs run: local (this machine), slurm, sge or pbs; see utils/cmd.sh.

cmd_backend=local
. ../../utils/cmd.sh
