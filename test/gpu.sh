#!/usr/bin/env bash
# What a few minutes on one GPU show: bash test/gpu.sh [--minutes 10] [--device cuda|cpu] [--out DIR]. Sets up nothing:
# takes tools/venv if it is there, else the python3 and torch on the PATH. A rerun goes on; the last lines are tables.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
[ ! -x tools/venv/bin/python3 ] || PATH="${PWD}/tools/venv/bin:${PATH}"
export PYTHONPATH="${PWD}${PYTHONPATH:+:${PYTHONPATH}}"
exec python3 test/gpu/measure.py "$@"
