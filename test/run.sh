#!/usr/bin/env bash
# All tests: bash test/run.sh [arguments of pytest]. Sets the environment up first where it is not there yet.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
bash tools/setup.sh
unset PYTHONPATH PYTHONHOME
export PATH="${PWD}/tools/venv/bin:${PATH}" PYTHONNOUSERSITE=1
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" # as utils/path.sh has it
exec python -m pytest "$@"
