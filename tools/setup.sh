#!/usr/bin/env bash
# Makes the environment that the recipes and tests run in, and checks it.
#
#   bash tools/setup.sh [--extras test,mini]
#
# An active environment ($VIRTUAL_ENV or conda) that holds the pinned versions is used as it is; otherwise tools/venv is
# made. Done once, a further call returns at once; interrupted, the same call finishes. What was decided stands in
# tools/.environment, which utils/path.sh reads. PYTHON chooses the Python (3.10 to 3.13) to make the environment with.
# Exit status: 0, 1 if it failed, 2 for usage, 75 if interrupted (call it again).
set -euo pipefail

tools="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)"
root="$(dirname -- "${tools}")"
venv="${tools}/venv"
state="${tools}/.environment"
pip_log="${tools}/setup.log"
needed_gb=7 # torch's CUDA wheels unpacked, and one of them packed

say() { printf 'setup: %s\n' "$*"; }
die() {
    printf 'setup: %s\n' "$1" >&2
    exit "${2:-1}"
}

extras=
while [ $# -gt 0 ]; do
    case "$1" in
        --extras) [ $# -ge 2 ] || die "--extras wants a value: mini, test or mini,test" 2 ; extras="$2"; shift 2 ;;
        --extras=*) extras="${1#*=}"; shift ;;
        -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) die "unknown argument '$1'; usage: bash tools/setup.sh [--extras test,mini]" 2 ;;
    esac
done
IFS=', ' read -r -a extras <<<"${extras}"
for extra in "${extras[@]}"; do
    [ -f "${tools}/requirements-${extra}.txt" ] || die "unknown extra '${extra}'; known are mini and test" 2
done

# A foreign PYTHONPATH or a user-wide pip setting must not leak into the environment.
unset PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE=1 PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

# --- What is there already ---------------------------------------------------------------------------------------------

active="${VIRTUAL_ENV:-${CONDA_PREFIX:-}}"
[ "${active}" != "${venv}" ] || active=

# Identifies all that the environment depends on; cksum is in POSIX, so it is on every machine.
key() {
    local python="$1"
    {
        cat "${tools}"/requirements*.txt "${root}/setup.py"
        printf '%s\n' "${root}" "${active}"
        "${python}" -S -E -c 'import sys; print(sys.version_info[:2])'
    } | cksum
}

installed=() # extras of the environment found by ready()
ready() {
    local stored_key='' stored_extras='' python='' extra
    [ -r "${state}" ] || return 1
    { read -r stored_key && read -r stored_extras && read -r python; } <"${state}" || return 1
    [ -x "${python}" ] && [ "$(key "${python}" 2>/dev/null)" = "${stored_key}" ] || return 1
    read -r -a installed <<<"${stored_extras#extras}"
    for extra in "${extras[@]}"; do
        [[ " ${installed[*]} " == *" ${extra} "* ]] || return 1
    done
}
if ready; then exit 0; fi

[ -w "${tools}" ] || die "${tools} cannot be written, and the environment noted there is not yours; use a clone of your own\
${active:+, or deactivate ${active}}"

# --- One set-up at a time ----------------------------------------------------------------------------------------------

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

# Where there is no flock a directory is the lock, and one whose owner is gone is taken over.
take_lock_directory() {
    local owner waiting=false
    until mkdir -- "${lock}" 2>/dev/null; do
        owner="$(cat -- "${lock}/pid" 2>/dev/null || true)"
        if [ -n "${owner}" ] && ! kill -0 "${owner}" 2>/dev/null; then
            rm -rf -- "${lock}"
            continue
        fi
        ${waiting} || say "waiting for another set-up (process ${owner:-unknown}) to finish"
        waiting=true
        sleep 1
    done
    printf '%s\n' "$$" >"${lock}/pid"
    trap finish EXIT
}
if command -v flock >/dev/null; then
    exec 9>"${lock}.file"
    flock -n 9 || { say "waiting for another set-up to finish"; flock 9; }
else
    take_lock_directory
fi
if ready; then exit 0; fi
extras+=("${installed[@]}") # of an environment that grows, or whose pins changed
mapfile -t extras < <(printf '%s\n' "${extras[@]}" | sort -u | sed '/^$/d')
extras_list="$(IFS=,; printf '%s' "${extras[*]}")"

# --- An active environment ---------------------------------------------------------------------------------------------

settle() {
    local python="$1" temporary="${state}.new"
    printf '%s\n' "$(key "${python}")" "extras ${extras[*]}" "${python}" >"${temporary}"
    mv -f -- "${temporary}" "${state}"
}

# Installs speechlvm itself into the active environment, unless another checkout is installed there.
adopt() {
    local python="${active}/bin/python"
    "${python}" "${tools}/check_install.py" --pins --extras "${extras_list}" >"${pip_log}" 2>&1 || return 1
    if ! (cd / && "${python}" -c 'import speechlvm') 2>/dev/null; then
        "${python}" -m pip install --no-deps -e "${root}" >>"${pip_log}" 2>&1 || return 1
    fi
    "${python}" "${tools}/check_install.py" --extras "${extras_list}" >>"${pip_log}" 2>&1
}
if [ -n "${active}" ] && [ -x "${active}/bin/python" ]; then
    if adopt; then
        settle "${active}/bin/python"
        say "the active environment ${active} holds the pinned versions and is used: $(tail -n 1 -- "${pip_log}")"
        exit 0
    fi
    say "the active environment ${active} is not used ($(grep -m 1 '^check_install:' "${pip_log}" |
        cut -d ' ' -f 2- || printf 'see %s' "${pip_log}")); tools/venv is"
fi

# --- tools/venv --------------------------------------------------------------------------------------------------------

fits() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}
base=
if [ -n "${PYTHON:-}" ]; then
    fits "${PYTHON}" || die "PYTHON=${PYTHON} is not Python 3.10 to 3.13 with venv; set it to one that is"
    base="${PYTHON}"
else
    for candidate in python3 python3.13 python3.12 python3.11 python3.10; do
        if fits "${candidate}"; then base="${candidate}"; break; fi
    done
    [ -n "${base}" ] || die "no Python 3.10 to 3.13 with venv is on the PATH; install one (on Debian with its \
python3-venv package) or set PYTHON to it"
fi

# Runs a command with its output in the log and one line of progress that tells the time taken so far.
started=${SECONDS}
watched() {
    local what="$1" status=0 last=0 now
    shift
    "$@" >>"${pip_log}" 2>&1 &
    child=$!
    while kill -0 "${child}" 2>/dev/null; do
        now=$((SECONDS - started))
        if [ -t 1 ]; then
            printf '\rsetup: %s ... %d s: %.60s\033[K' "${what}" "${now}" \
                "$(tail -n 1 -- "${pip_log}" | tr -d '\r' | tr '\t' ' ' | sed 's/^ *//')"
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
    if grep -q -i -E 'no space left|errno 28' "${pip_log}"; then
        die "the disk is full at ${tools}; make room (${needed_gb} GB) and run this again"
    elif grep -q -i -E 'NewConnectionError|Failed to establish|Name or service|name resolution|Read timed out|ProxyError|SSLError|Connection (refused|reset|aborted|broken)|ConnectTimeout' "${pip_log}"; then
        die "the package index cannot be reached; check the network or pip's settings (PIP_INDEX_URL, proxy) and run \
this again; log: ${pip_log}"
    fi
    die "$1: $(grep -i '^error' "${pip_log}" | tail -n 1 | cut -c 1-200); log: ${pip_log}"
}

: >"${pip_log}"
if [ -e "${venv}" ] && ! { [ -f "${venv}/pyvenv.cfg" ] && fits "${venv}/bin/python" &&
    "${venv}/bin/python" -m pip --version >/dev/null 2>&1 &&
    [ "$("${venv}/bin/python" -c 'import sys; print(sys.prefix)')" = "${venv}" ]; }; then
    say "tools/venv is incomplete or belongs elsewhere and is made anew"
    rm -rf -- "${venv}"
fi
if [ ! -e "${venv}" ]; then
    free_gb=$(($(df -Pk -- "${tools}" | awk 'NR == 2 { print $4 }') / 1000000))
    [ "${free_gb}" -ge "${needed_gb}" ] || die "${free_gb} GB are free at ${tools}, ${needed_gb} GB are needed"
    say "making tools/venv with $(command -v "${base}"); the pinned wheels take 5 GB and some minutes"
    watched "making the environment" "${base}" -m venv -- "${venv}" || explain "tools/venv could not be made"
fi

# pip takes a package for installed whose files an interruption left half-written; without its metadata it does not.
"${venv}/bin/python" "${tools}/check_install.py" --damaged 2>/dev/null | while IFS= read -r directory; do
    [[ "${directory}" != "${venv}/"* ]] || rm -rf -- "${directory}"
done

arguments=(-r "${tools}/requirements.txt")
for extra in "${extras[@]}"; do arguments+=(-r "${tools}/requirements-${extra}.txt"); done
watched "installing" "${venv}/bin/python" -m pip install --progress-bar off "${arguments[@]}" -e "${root}" ||
    explain "pip failed"
watched "checking" "${venv}/bin/python" "${tools}/check_install.py" --extras "${extras_list}" || {
    grep '^check_install:' "${pip_log}" >&2 || true
    die "the environment does not pass tools/check_install.py; log: ${pip_log}"
}
settle "${venv}/bin/python"
say "environment ready after $((SECONDS - started)) s: $(tail -n 1 -- "${pip_log}")"
