#!/usr/bin/env bash
# All tests: bash test/run.sh [arguments of pytest]. Sets up the environment first if needed. Test files run in
# parallel, one process per CPU (pytest-xdist; -n 0 runs them in one).
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
bash tools/setup.sh
unset PYTHONPATH PYTHONHOME
export PATH="${PWD}/tools/venv/bin:${PATH}" PYTHONNOUSERSITE=1
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec python -m pytest -n auto --dist loadfile --no-loadscope-reorder "$@"
