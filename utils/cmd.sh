# shellcheck shell=bash disable=SC2034
# Sourced by each recipe's cmd.sh after it has set cmd_backend: the commands that jobs are submitted with, all in Kaldi's
# calling convention (see local.py). train_cmd is for jobs on processors, cuda_cmd for those that may want a GPU. The
# programs are found on the PATH (path.sh), so that a blank in the checkout's path does no harm.
# How a cluster is told what a job needs stands in conf/<cmd_backend>.conf: a recipe's own, or else the one beside this.

case "${cmd_backend:=local}" in
    local) train_cmd=local.py ;;
    slurm | sge | pbs)
        train_cmd="${cmd_backend}.py"
        [ ! -f "conf/${cmd_backend}.conf" ] || train_cmd+=" --config conf/${cmd_backend}.conf"
        ;;
    *)
        printf '%s: cmd.sh: unknown cmd_backend "%s"; known are local slurm sge pbs\n' "${0##*/}" "${cmd_backend}" >&2
        exit 2
        ;;
esac
cuda_cmd="${train_cmd}"
