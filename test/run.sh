#!/usr/bin/env bash
# All tests: bash test/run.sh [arguments of pytest]. Sets the environment up first where it is not there yet.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
bash tools/setup.sh --extras test,mini
{ read -r _ && read -r _ && read -r python; } <tools/.environment
unset PYTHONPATH PYTHONHOME
export PATH="${python%/*}:${PATH}" PYTHONNOUSERSITE=1
exec python -m pytest "$@"
