#!/usr/bin/env bash
# Checks recipes: utils/check_recipe.sh DIR...   (--help lists the options)
set -euo pipefail

root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$root/tools/venv/bin/python
if [ -n "${VIRTUAL_ENV:-}" ] || [ ! -x "$python" ]; then
    python=python3
fi
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m speechlvm.bin.check_recipe "$@"
