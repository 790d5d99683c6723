# shellcheck shell=bash disable=SC2154
# Sourced by stages.sh: how stages run programs. Logs are named before a program starts, signals reach it, and a failure
# names its stage (variable current).

children=() # that run, or have just ended
failed=0    # of those that have ended: 0; the status of those that failed if they agree; else 1
interrupted=false
current=
trap 'say_failure $?' EXIT

# A background job does not inherit this.
catch_signals() { trap 'interrupted=true; stop_children' INT TERM HUP; }
catch_signals

stop_children() { [ "${#children[@]}" -eq 0 ] || kill -TERM "${children[@]}" 2>/dev/null || true; }

say_failure() {
    trap '' PIPE # exit with the status even if nobody reads the message
    [ "$1" -ne 0 ] && [ -n "${current}" ] || return 0
    if [ "$1" -eq 75 ]; then
        printf '%s: %s: interrupted; run the same command again to resume\n' "${0##*/}" "${current}" >&2 || true
    else
        printf '%s: %s failed with status %d; fix the error above and run the same command again\n' \
            "${0##*/}" "${current}" "$1" >&2 || true
    fi
}

# Starts a program or a function so that a signal to this shell reaches it at once (a shell that waits in the foreground
# would delay it).
start() {
    ! ${interrupted} || exit 75
    in_background "$@" &
    children+=("$!")
    ! ${interrupted} || stop_children
}

# The same; on this machine first waits until --nthreads CPUs are free, or nothing else runs.
start_with_room() {
    local at_once=1
    if [ "${ngpu}" -eq 0 ] && [ "${nthreads}" -gt 0 ]; then
        at_once=$(($(getconf _NPROCESSORS_ONLN) / nthreads))
        [ "${at_once}" -ge 1 ] || at_once=1
    fi
    while [ "${cmd_backend}" = local ] && ! ${interrupted} && reap && [ "${#children[@]}" -ge "${at_once}" ]; do
        sleep 0.1 || true
    done
    ${interrupted} || start "$@" # join reports an interruption when all have stopped
}

in_background() {
    catch_signals
    children=()
    failed=0
    "$@"
}

is_running() {
    [[ $'\n'"$(jobs -pr)"$'\n' == *$'\n'"$1"$'\n'* ]]
}

# Takes note of children that have ended: bash forgets the status of one when it starts another of the same number.
reap() {
    local child
    local -a left=()
    for child in "${children[@]}"; do
        if is_running "${child}"; then left+=("${child}"); else note_end "${child}"; fi
    done
    children=("${left[@]}")
}

note_end() {
    local status=0
    wait "$1" || status=$?
    while [ "${status}" -gt 128 ] && is_running "$1"; do # a signal ended the wait, not the child
        status=0
        wait "$1" || status=$?
    done
    [ "${status}" -eq 0 ] || [ "${failed}" -eq "${status}" ] || failed=$((failed ? 1 : status))
}

# Waits for everything started. Returns `failed`.
join() {
    local child status
    for child in "${children[@]}"; do note_end "${child}"; done
    status="${failed}"
    children=()
    failed=0
    ! ${interrupted} || exit 75
    return "${status}"
}

run() {
    ! ${interrupted} || exit 75
    "$@" &
    children=("$!")
    ! ${interrupted} || stop_children
    join
}

# The output of the last job in a log, without the runner's own lines.
show() { awk '/^# Started at /{ text = ""; next } !/^# /{ text = text $0 "\n" } END { printf "%s", text }' "$1"; }

# Whether PROGRAM --check finds its results complete, which takes no job.
complete() {
    "$@" --check >/dev/null 2>&1 || return 1
    log "  complete"
}

# single processor|gpu|train LOG PROGRAM...: one job, unless it is complete: on one CPU; on a GPU or several CPUs; or on
# all GPUs of all nodes, restarted if preempted.
single() {
    local logfile="$2" submit="${train_cmd}"
    case "$1" in
        gpu) submit="${cuda_cmd} --gpu $((ngpu > 0)) --num-threads ${nthreads}" ;;
        train) submit="${cuda_cmd} --gpu ${ngpu} --num-nodes ${num_nodes} --num-threads ${nthreads} --requeue true" ;;
    esac
    shift 2
    ! complete "$@" || return 0
    log "  log: ${logfile}"
    # shellcheck disable=SC2086 # the commands of cmd.sh are words
    run ${submit} "${logfile}" "$@"
}

# sharded processors|gpu NJ LOG PROGRAM...: does nothing if PROGRAM --check finds complete results; else runs NJ jobs
# in parallel, and one that merges their shards; a single job does both. LOG has no extension.
sharded() {
    local where="$1" jobs="$2" logfile="$3" submit="${train_cmd}" job=JOB
    shift 3
    while [[ "${logfile} $*" == *"${job}"* ]]; do job+=_; done # a path may contain these letters
    [ "${where}" = processors ] || submit="${cuda_cmd} --gpu $((ngpu > 0))"
    ! complete "$@" --nj "${jobs}" || return 0
    if [ "${jobs}" -eq 1 ]; then
        log "  log: ${logfile}.log"
        [ "${where}" = processors ] || submit+=" --num-threads ${nthreads}"
        # shellcheck disable=SC2086 # the commands of cmd.sh are words
        run ${submit} "${logfile}.log" "$@"
        show "${logfile}.log"
        return
    fi
    log "  log: ${logfile}.*.log"
    # shellcheck disable=SC2086
    run ${submit} "${job}=1:${jobs}" "${logfile}.${job}.log" "$@" --nj "${jobs}" --job "${job}"
    # shellcheck disable=SC2086
    run ${train_cmd} "${logfile}.merge.log" "$@" --nj "${jobs}" --merge
    show "${logfile}.merge.log"
}

# A recipe's own program, if it has one; its output is shown, for counts and warnings.
hook() {
    local script="$1" logfile="$2"
    shift 2
    [ -f "${script}" ] || { log "  nothing to do: no ${script}"; return 0; }
    log "  log: ${logfile}"
    run local.py --num-threads 0 "${logfile}" bash "${script}" "$@"
    show "${logfile}"
}
