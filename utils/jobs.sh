# shellcheck shell=bash disable=SC2154
# Sourced by stages.sh: how stages run programs. Logs are named before a program starts, signals reach it, and a failure
# says which stage it belongs to (variable current).

child=
interrupted=false
current=
trap 'interrupted=true; [ -z "${child}" ] || kill -TERM "${child}" 2>/dev/null || true' INT TERM HUP
trap 'say_failure $?' EXIT

say_failure() {
    [ "$1" -ne 0 ] && [ -n "${current}" ] || return 0
    if [ "$1" -eq 75 ]; then
        printf '%s: %s: interrupted; run the same command again to go on\n' "${0##*/}" "${current}" >&2
    else
        printf '%s: %s failed with status %d; mend what it says above and run the same command again\n' \
            "${0##*/}" "${current}" "$1" >&2
    fi
}

# Runs a program so that a signal to this shell reaches it at once (a shell waiting in the foreground would sit on it).
run() {
    local status=0
    ! ${interrupted} || exit 75
    "$@" &
    child=$!
    ! ${interrupted} || kill -TERM "${child}" 2>/dev/null || true
    wait "${child}" || status=$?
    while kill -0 "${child}" 2>/dev/null; do
        status=0
        wait "${child}" || status=$?
    done
    child=
    ! ${interrupted} || exit 75
    return "${status}"
}

# What the last job in a log wrote, without the runner's own lines.
show() { awk '/^# Started at /{ text = ""; next } !/^# /{ text = text $0 "\n" } END { printf "%s", text }' "$1"; }

# single processor|gpu LOG PROGRAM...: one job on one processor, or on a GPU or several processors.
single() {
    local logfile="$2" submit="${train_cmd}"
    [ "$1" = processor ] || submit="${cuda_cmd} --gpu ${ngpu} --num-threads ${nthreads}"
    shift 2
    log "  log: ${logfile}"
    # shellcheck disable=SC2086 # the commands of cmd.sh are words
    run ${submit} "${logfile}" "$@"
}

# sharded processors|gpu NJ LOG PROGRAM...: does nothing if PROGRAM --check finds its results complete; else NJ jobs of
# it side by side, and one that joins their results. LOG is without its end.
sharded() {
    local where="$1" jobs="$2" logfile="$3" submit="${train_cmd}"
    shift 3
    [ "${where}" = processors ] || submit="${cuda_cmd} --gpu ${ngpu}"
    if "$@" --nj "${jobs}" --check >/dev/null 2>&1; then
        log "  complete"
        return
    fi
    log "  log: ${logfile}.*.log"
    # shellcheck disable=SC2086
    run ${submit} JOB=1:"${jobs}" "${logfile}.JOB.log" "$@" --nj "${jobs}" --job JOB
    # shellcheck disable=SC2086
    run ${train_cmd} "${logfile}.merge.log" "$@" --nj "${jobs}" --merge
    show "${logfile}.merge.log"
}

# A recipe's own program, where it has one; what it wrote is shown, for its counts and warnings.
hook() {
    local script="$1" logfile="$2"
    shift 2
    [ -f "${script}" ] || { log "  nothing to do: no ${script}"; return 0; }
    log "  log: ${logfile}"
    run local.py --num-threads 0 "${logfile}" bash "${script}" "$@"
    show "${logfile}"
}
