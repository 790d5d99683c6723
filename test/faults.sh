#!/usr/bin/env bash
# Fault injection: kills at any time, failing file operations, signals, two runs at once, full disks.
#
#   bash test/faults.sh [--kinds "kill operations signals locks stages disk"] [--kills 200] [--minutes 30] [--seed 1]
#
# Prints a table of counts. Exit status 0 if every run recovered; else 1, with a line for each violation.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
bash tools/setup.sh
unset PYTHONPATH PYTHONHOME
export PATH="${PWD}/tools/venv/bin:${PATH}" PYTHONNOUSERSITE=1 PYTHONUTF8=1 LC_ALL=C
exec python test/faults "$@"
