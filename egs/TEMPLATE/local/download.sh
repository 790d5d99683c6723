#!/usr/bin/env bash
# Stage 0: finds out whether the corpus is there.
set -euo pipefail
corpus= # where it should be
. utils/parse_options.sh
. utils/log.sh

# FILL IN: where to get it; or, if its licence permits, download it here with python -m speechlvm.bin.download.
[ -d "${corpus}" ] || die "the corpus is not at '${corpus}' (a relative path starts at ${PWD}); get it and say where it \
lies: CORPUS= in db.sh, or --corpus DIR"
printf 'corpus: %s\n' "${corpus}"
