# shellcheck shell=bash disable=SC2034
# Sourced by each recipe's cmd.sh after it has set cmd_backend: the commands that jobs are submitted with, all in Kaldi's
# calling convention (see local.py). train_cmd is for jobs on processors, cuda_cmd for those that may want a GPU. The
# programs are found on the PATH (path.sh), so that a blank in the checkout's path does no harm.

case "${cmd_backend:=local}" in
    local)
        train_cmd="local.py"
        cuda_cmd="local.py"
        ;;
    # A cluster's runner has its place here: a program beside local.py with the same options and exit statuses.
    *)
        printf '%s: cmd.sh: unknown cmd_backend "%s"; known is local\n' "${0##*/}" "${cmd_backend}" >&2
        exit 2
        ;;
esac
