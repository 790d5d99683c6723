#!/usr/bin/env bash
# Fixes Kaldi data directories: utils/fix_data_dir.sh [options] DIR...   (--help lists the options)
set -euo pipefail

root=$(CDPATH='' cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$root/tools/venv/bin/python
if [ -n "${VIRTUAL_ENV:-}" ] || [ ! -x "$python" ]; then
    python=python3
fi
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m speechlvm.bin.fix_data_dir "$@"
