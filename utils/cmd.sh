# shellcheck shell=bash disable=SC2034
# Sourced by the stages as cmd.sh of the recipe: where jobs run. Edit the next line for all recipes, whose cmd.sh are
# links to this file; or replace a recipe's link by a file that sets cmd_backend and then sources utils/cmd.sh.
cmd_backend="${cmd_backend:-local}" # local (this machine), slurm, sge or pbs

# The commands that submit jobs, all with Kaldi's calling convention (see local.py). train_cmd is for CPU jobs,
# cuda_cmd for jobs that may use a GPU. The programs are found on the PATH (path.sh), so that spaces in the path of the
# checkout do no harm. conf/<cmd_backend>.conf maps a job's resources to options of the scheduler: a recipe's own, or
# else the one in this directory.
case "${cmd_backend}" in
    local) train_cmd=local.py ;;
    slurm | sge | pbs)
        train_cmd="${cmd_backend}.py"
        [ ! -f "conf/${cmd_backend}.conf" ] || train_cmd+=" --config conf/${cmd_backend}.conf"
        ;;
    *)
        printf '%s: cmd.sh: unknown cmd_backend "%s"; expected local, slurm, sge or pbs\n' "${0##*/}" "${cmd_backend}" >&2
        exit 2
        ;;
esac
cuda_cmd="${train_cmd}"
