#!/usr/bin/env bash
# Installs what tests of cluster runners need, with apt-get, as root (Debian, Ubuntu): Slurm, munge and Grid Engine. The
# tests start and stop their own daemons; those of the machine are left unconfigured and need not run.
set -euo pipefail

packages=(slurm-wlm munge gridengine-client gridengine-exec gridengine-master)

if ! command -v apt-get >/dev/null; then
    printf 'install.sh: no apt-get; install these packages or their equivalents on this system:  %s\n' "${packages[*]}" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    printf 'install.sh: only root can install packages: sudo bash %s\n' "$0" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install --yes --no-install-recommends "${packages[@]}"
