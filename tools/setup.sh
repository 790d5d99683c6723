#!/usr/bin/env bash
# Creates tools/venv, the environment of the recipes and tests, exactly as pinned in tools/requirements.txt, and checks
# it. If it is complete, returns at once; if interrupted, run it again; packages that differ from the lock are
# reinstalled. PYTHON selects the Python (3.11 to 3.14) to use.
#
#   bash tools/setup.sh
#
# Exit status: 0, 1 if it failed, 2 for usage, 75 if interrupted (run it again).
set -euo pipefail

tools="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)"
root="$(dirname -- "${tools}")"
venv="${tools}/venv"
stamp="${venv}/speechlvm-lock" # key() of what the environment was made from, once it has passed the check
setup_log="${tools}/setup.log"
needed_gb=7 # torch's CUDA wheels unpacked, and one of them packed

say() { printf 'setup: %s\n' "$*"; }
die() {
    printf 'setup: %s\n' "$1" >&2
    exit "${2:-1}"
}

case "${1:-}" in
    '') ;;
    -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '/^set /d'; exit 0 ;;
    *) die "unknown argument '$1'; usage: bash tools/setup.sh" 2 ;;
esac

# A foreign PYTHONPATH or a user-wide pip setting must not leak into the environment.
unset PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE=1 PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

# Identifies everything that the environment depends on; cksum is in POSIX, so every machine has it.
key() { { cat "${tools}/requirements.txt" "${root}/setup.py"; printf '%s\n' "${root}"; } | cksum; }

ready() { [ -r "${stamp}" ] && [ -x "${venv}/bin/python" ] && [ "$(<"${stamp}")" = "$(key)" ]; }
if ready; then exit 0; fi

[ -w "${tools}" ] || die "${tools} is not writable and its environment is not ready; use your own clone"

# --- One setup at a time ----------------------------------------------------------------------------------------------

lock="${tools}/.setup.lock"
child=
finish() {
    local status=$?
    [ -d "${lock}" ] && rm -rf -- "${lock}"
    exit "${status}"
}
interrupted() {
    [ -z "${child}" ] || kill -TERM "${child}" 2>/dev/null || true
    wait
    printf '\n' >&2
    die "interrupted; run the same command again to finish" 75
}
trap interrupted INT TERM HUP

# Without flock a directory is the lock; one whose owner is gone is taken over.
take_lock_directory() {
    local owner waiting=false
    until mkdir -- "${lock}" 2>/dev/null; do
        owner="$(cat -- "${lock}/pid" 2>/dev/null || true)"
        if [ -n "${owner}" ] && ! kill -0 "${owner}" 2>/dev/null; then
            rm -rf -- "${lock}"
            continue
        fi
        ${waiting} || say "waiting for another setup (process ${owner:-unknown}) to finish"
        waiting=true
        sleep 1
    done
    printf '%s\n' "$$" >"${lock}/pid"
    trap finish EXIT
}
if command -v flock >/dev/null; then
    exec 9>"${lock}.file"
    flock -n 9 || { say "waiting for another setup to finish"; flock 9; }
else
    take_lock_directory
fi
if ready; then exit 0; fi

# --- tools/venv --------------------------------------------------------------------------------------------------------

fits() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1
}
base=
if [ -n "${PYTHON:-}" ]; then
    fits "${PYTHON}" || die "PYTHON=${PYTHON} is not Python 3.11 to 3.14 with venv; set it to one that is"
    base="${PYTHON}"
else
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if fits "${candidate}"; then base="${candidate}"; break; fi
    done
    [ -n "${base}" ] || die "no Python 3.11 to 3.14 with venv is on the PATH; install one (on Debian with its \
python3-venv package) or set PYTHON to it"
fi

# Runs a command with its output in the log and one line of progress with the elapsed time.
started=${SECONDS}
watched() {
    local what="$1" status=0 last=0 now
    shift
    "$@" >>"${setup_log}" 2>&1 &
    child=$!
    while kill -0 "${child}" 2>/dev/null; do
        now=$((SECONDS - started))
        if [ -t 1 ]; then
            printf '\rsetup: %s ... %d s: %.60s\033[K' "${what}" "${now}" \
                "$(tail -n 1 -- "${setup_log}" | tr -d '\r' | tr '\t' ' ' | sed 's/^ *//')"
        elif [ $((now - last)) -ge 30 ]; then
            say "${what} ... ${now} s"
            last=${now}
        fi
        sleep 0.5
    done
    wait "${child}" || status=$?
    child=
    [ ! -t 1 ] || printf '\r\033[K'
    return "${status}"
}
explain() {
    if grep -q -i -E 'no space left|errno 28' "${setup_log}"; then
        die "the disk is full at ${tools}; free ${needed_gb} GB and run this again"
    elif grep -q -i -E 'NewConnectionError|Failed to establish|Name or service|name resolution|Read timed out|ProxyError|SSLError|Connection (refused|reset|aborted|broken)|ConnectTimeout' "${setup_log}"; then
        die "the package index cannot be reached; check the network or pip's settings (PIP_INDEX_URL, proxy) and run \
this again; log: ${setup_log}"
    fi
    die "$1: $(grep -i -E '^(error|check_install):?' "${setup_log}" | tail -n 1 | cut -c 1-300); log: ${setup_log}"
}

: >"${setup_log}"
if [ -e "${venv}" ] && ! { [ -f "${venv}/pyvenv.cfg" ] && fits "${venv}/bin/python" &&
    "${venv}/bin/python" -m pip --version >/dev/null 2>&1 &&
    [ "$("${venv}/bin/python" -c 'import sys; print(sys.prefix)')" = "${venv}" ]; }; then
    say "tools/venv is incomplete or of another checkout; recreating it"
    rm -rf -- "${venv}"
fi
if [ ! -e "${venv}" ]; then
    free_gb=$(($(df -Pk -- "${tools}" | awk 'NR == 2 { print $4 }') / 1000000))
    [ "${free_gb}" -ge "${needed_gb}" ] || die "${free_gb} GB are free at ${tools}, ${needed_gb} GB are required"
    say "creating tools/venv with $(command -v "${base}"); the pinned wheels take 5 GB and a few minutes"
    watched "creating the environment" "${base}" -m venv -- "${venv}" || explain "tools/venv could not be created"
fi

watched "installing and checking" "${venv}/bin/python" "${tools}/check_install.py" ||
    explain "the environment differs from tools/requirements.txt"
key >"${stamp}.new"
mv -f -- "${stamp}.new" "${stamp}"
say "environment ready after $((SECONDS - started)) s: $(tail -n 1 -- "${setup_log}")"
