# shellcheck shell=bash
# Sourced: messages of all scripts.
#   log TEXT...          one line with the time on standard output
#   die TEXT [STATUS]    one line on standard error, and exit (status 1 unless given; 2 means usage)

log() { printf '[%(%Y-%m-%d %H:%M:%S)T] %s\n' -1 "$*"; }

die() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit "${2:-1}"
}

# A human-readable duration: 75 -> 1 min 15 s.
duration() {
    local seconds="$1"
    if [ "${seconds}" -ge 3600 ]; then
        printf '%d h %d min' $((seconds / 3600)) $((seconds % 3600 / 60))
    elif [ "${seconds}" -ge 60 ]; then
        printf '%d min %d s' $((seconds / 60)) $((seconds % 60))
    else
        printf '%d s' "${seconds}"
    fi
}
