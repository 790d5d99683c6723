#!/usr/bin/env bash
# Refreshes tools/requirements.txt: every package of setup.py and of its extras mini and test, with all dependencies,
# at one exact version with hashes for Python 3.11 to 3.14. Afterwards run the tests, then commit both files.
#
#   bash tools/lock.sh [further arguments of uv pip compile, such as --upgrade or --upgrade-package numpy]
#
# Nothing else resolves versions: tools/setup.sh installs the pinned ones.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

lock=tools/requirements.txt
scratch="$(mktemp -d)"
trap 'rm -rf -- "${scratch}"' EXIT
python3 -m venv -- "${scratch}/venv"
"${scratch}/venv/bin/python" -m pip install --quiet uv
uv="${scratch}/venv/bin/uv"

# One version for all Pythons, so that they give the same numbers. setuptools builds the editable install.
printf 'setuptools\n' | "${uv}" pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
    --extra mini --extra test --generate-hashes --custom-compile-command 'bash tools/lock.sh' --output-file "${lock}" "$@" setup.py - >/dev/null

for python in 3.11 3.12 3.13 3.14; do
    for platform in x86_64-manylinux_2_28 aarch64-manylinux_2_28 aarch64-apple-darwin; do
        printf 'lock: wheels for Python %s on %s: ' "${python}" "${platform}"
        "${uv}" pip install --quiet --dry-run --target "${scratch}/target" --python-version "${python}" \
            --python-platform "${platform}" --only-binary :all: --require-hashes --no-deps -r "${lock}"
        printf 'all available\n'
    done
done
