# shellcheck shell=bash disable=SC2034
# Sourced by the stages as cmd.sh of the recipe: where jobs run. Edit the next line for all recipes, as their cmd.sh are
# links to this file; or put a file in the place of a recipe's link that sets cmd_backend and then sources utils/cmd.sh.
cmd_backend="${cmd_backend:-local}" # local (this machine), slurm, sge or pbs

# The commands that jobs are submitted with, all in Kaldi's calling convention (see local.py). train_cmd is for jobs on
# processors, cuda_cmd for those that may want a GPU. The programs are found on the PATH (path.sh), so that a blank in the
# checkout's path does no harm. How a cluster is told what a job needs is in conf/<cmd_backend>.conf: a recipe's own, or
# else the one beside this.
case "${cmd_backend}" in
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
