#!/usr/bin/env bash
# A Grid Engine of one host, for tests: Debian's programs with a cell, spools and ports of their own in DIRECTORY.
#
#   sge.sh start DIRECTORY QMASTER_PORT EXECD_PORT    afterwards: . DIRECTORY/env.sh
#   sge.sh stop DIRECTORY
#
# Four slots, a queue that gives notice two seconds before it kills, a parallel environment smp, two GPUs that are only
# counted. Jobs may be root's.
set -euo pipefail

programs=/usr/lib/gridengine
share=/usr/share/gridengine

# Waits until a command succeeds, at most 20 s.
until_true() {
    for _ in $(seq 100); do
        ! "$@" >/dev/null 2>&1 || return 0
        sleep 0.2
    done
    printf 'sge.sh: timed out waiting for: %s\n' "$*" >&2
    return 1
}

set_up() {
    local host common="$1/cell/common" arch
    host="$(hostname)"
    arch="$("${share}/util/arch")"
    mkdir -p "${common}" "$1/qmaster/job_scripts" "$1/execd" "$1/bin" "$1/utilbin" "$1/lib"
    ln -s "${share}/util" "$1/util"
    for folder in bin utilbin lib; do ln -s "${programs}" "$1/${folder}/${arch}"; done
    cat >"$1/env.sh" <<END
# shellcheck shell=bash
# Source this file to use this cell.
export SGE_ROOT="$1" SGE_CELL=cell SGE_QMASTER_PORT=$2 SGE_EXECD_PORT=$3 PATH="${programs}:\${PATH}"
END
    printf '%s\n' "${host}" >"${common}/act_qmaster"
    printf '%s localhost\n' "${host}" >"${common}/host_aliases" # the host's name may stand for a loopback address
    cat >"${common}/bootstrap" <<END
admin_user none
default_domain none
ignore_fqdn true
spooling_method classic
spooling_lib libspoolc
spooling_params ${common};$1/qmaster
binary_path ${programs}
qmaster_spool_dir $1/qmaster
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
jvm_threads 0
END
    sed -e "s|^\(execd_spool_dir\).*|\1 $1/execd|" -e 's/^\(min_.id\).*/\1 0/' -e 's/^\(mailer\).*/\1 \/bin\/true/' \
        -e 's/^\(administrator_mail\).*/\1 none/' -e 's/^\(load_report_time\).*/\1 00:00:01/' \
        -e 's/flush_time=00:00:15/flush_time=00:00:00 accounting_flush_time=00:00:00/' \
        "${share}/default-configuration" >"$1/configuration"
    spoolinit classic libspoolc "${common};$1/qmaster" init
    spooldefaults configuration "$1/configuration"
    spooldefaults complexes "${share}/util/resources/centry"
    spooldefaults usersets "${share}/util/resources/usersets"
    spooldefaults managers "$(id -un)"
}

start() {
    local host root
    host="$(hostname)"
    mkdir -p "$1"
    root="$(cd "$1" && pwd -P)"
    export SGE_ROOT="${root}" SGE_CELL=cell SGE_QMASTER_PORT="$2" SGE_EXECD_PORT="$3"
    set_up "${root}" "$2" "$3"
    sge_qmaster
    until_true qconf -sh
    qconf -as "${host}"
    qconf -Ap "${share}/util/resources/pe/smp"
    qconf -sc >"${root}/complexes"
    printf 'gpu gpu INT <= YES YES 0 0\n' >>"${root}/complexes"
    qconf -Mc "${root}/complexes"
    qconf -ssconf >"${root}/scheduler"
    sed -i -e 's/^\(schedule_interval\).*/\1 0:0:1/' -e 's/^\(flush_[a-z]*_sec\).*/\1 1/' \
        -e 's/^\(job_load_adjustments\).*/\1 NONE/' "${root}/scheduler"
    qconf -Msconf "${root}/scheduler"
    sge_execd
    until_true qconf -se "${host}"
    qconf -rattr exechost complex_values gpu=2 "${host}"
    qconf -sq >"${root}/queue" # a template
    sed -i -e 's/^\(qname\).*/\1 all.q/' -e "s/^\(hostlist\).*/\1 ${host}/" -e 's/^\(slots\).*/\1 4/' \
        -e 's/^\(pe_list\).*/\1 smp/' -e 's/^\(notify\).*/\1 00:00:02/' \
        -e 's/^\(load_thresholds\).*/\1 NONE/' -e 's/^\(shell_start_mode\).*/\1 unix_behavior/' "${root}/queue"
    qconf -Aq "${root}/queue"
}

stop() {
    local process
    # shellcheck source=/dev/null
    . "$1/env.sh"
    qdel -u "$(id -un)" || true
    qconf -kej all || true # with its jobs
    qconf -km || true
    for process in "$1"/qmaster/qmaster.pid "$1"/execd/*/execd.pid; do
        [ ! -f "${process}" ] || kill -KILL "$(cat "${process}")" 2>/dev/null || true
    done
}

[ -x "${programs}/sge_qmaster" ] && [ -x "${programs}/sge_execd" ] || {
    printf 'sge.sh: gridengine-master and gridengine-exec are not installed\n' >&2
    exit 1
}
PATH="${programs}:${PATH}"
case "${1:-}:$#" in
    start:4) start "${@:2}" ;;
    stop:2) stop "$2" ;;
    *)
        sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac
