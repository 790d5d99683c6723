#!/usr/bin/env bash
# A Slurm of one host, for tests: Debian's programs with a configuration, a key, spools and ports of their own in
# DIRECTORY, so that a Slurm of the machine's own is not touched.
#
#   slurm.sh start DIRECTORY CONTROLLER_PORT NODE_PORT NODE_PORT    afterwards: export SLURM_CONF=DIRECTORY/slurm.conf
#   slurm.sh stop DIRECTORY
#
# Two nodes, n1 and n2, both this host, with two processors and two GPUs (which are only counted) each; n2 does not see
# what is in DIRECTORY/apart, where mount namespaces are to be had. DIRECTORY's path must be short: it holds sockets.
set -euo pipefail
export PATH="${PATH}:/usr/sbin:/sbin"

# Waits until a command succeeds, at most 20 s.
until_true() {
    for _ in $(seq 100); do
        ! "$@" >/dev/null 2>&1 || return 0
        sleep 0.2
    done
    printf 'slurm.sh: timed out waiting for: %s\n' "$*" >&2
    tail -n 5 "${directory}"/*.log >&2 || true
    return 1
}

configure() {
    local host user
    host="$(hostname -s)"
    user="$(id -un)"
    mkdir -p "${directory}"/{munge,state,apart}
    chmod 711 "${directory}" "${directory}/munge"
    (umask 077 && head -c 128 /dev/urandom >"${directory}/munge/key")
    cat >"${directory}/slurm.conf" <<END
ClusterName=test
SlurmctldHost=${host}(127.0.0.1)
SlurmctldPort=$1
SlurmUser=${user}
SlurmdUser=${user}
AuthType=auth/munge
AuthInfo=socket=${directory}/munge/socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
GresTypes=gpu
ReturnToService=2
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
KillWait=5
StateSaveLocation=${directory}/state
SlurmdSpoolDir=${directory}/spool.%n
SlurmctldPidFile=${directory}/controller.pid
SlurmdPidFile=${directory}/%n.pid
SlurmctldLogFile=${directory}/controller.log
SlurmdLogFile=${directory}/%n.log
NodeName=n1 NodeAddr=127.0.0.1 NodeHostname=${host} Port=$2 CPUs=2 RealMemory=1000 Gres=gpu:2
NodeName=n2 NodeAddr=127.0.0.1 NodeHostname=${host} Port=$3 CPUs=2 RealMemory=1000 Gres=gpu:2
PartitionName=test Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
END
    # Any two devices will do: nothing is done with them.
    printf 'NodeName=n[1-2] Name=gpu File=/dev/%s\n' null zero >"${directory}/gres.conf"
}

idle_nodes() { [ "$(sinfo --noheader --format=%D --states=idle)" = 2 ]; }

start() {
    local second=(slurmd -N n2)
    configure "$@"
    munged --key-file="${directory}/munge/key" --socket="${directory}/munge/socket" --pid-file="${directory}/munge.pid" \
        --log-file="${directory}/munge.log" --seed-file="${directory}/munge/seed"
    slurmctld -i
    slurmd -N n1
    # shellcheck disable=SC2016 # expanded by the inner shell
    ! unshare --mount true 2>/dev/null ||
        second=(unshare --mount sh -c 'mount -t tmpfs none "$1" && shift && exec "$@"' sh "${directory}/apart" "${second[@]}")
    "${second[@]}"
    until_true idle_nodes
}

no_jobs() { [ -z "$(squeue --noheader)" ]; }

ended() { ! kill -0 "$@"; }

stop() {
    scancel --state=pending --quiet --user="$(id -un)" || true
    scancel --signal=KILL --full --quiet --user="$(id -un)" || true
    until_true no_jobs || true
    mapfile -t daemons < <(cat "${directory}"/*.pid)
    kill "${daemons[@]}" || true
    for daemon in "${daemons[@]}"; do until_true ended "${daemon}"; done
}

action="$1" directory="$2"
shift 2
export SLURM_CONF="${directory}/slurm.conf"
"${action}" "$@"
