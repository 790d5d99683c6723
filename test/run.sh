#!/usr/bin/env bash
# All tests: bash test/run.sh [arguments of pytest]. Sets the environment up first where it is not there yet. Files of tests
# are shared out to one process for each processor (pytest-xdist; -n 0 runs them in one).
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
bash tools/setup.sh
unset PYTHONPATH PYTHONHOME
export PATH="${PWD}/tools/venv/bin:${PATH}" PYTHONNOUSERSITE=1
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" # as utils/path.sh has it
exec python -m pytest -n auto --dist loadfile --no-loadscope-reorder "$@"
