#!/usr/bin/env bash
# Stage 0: checks that the corpus exists.
set -euo pipefail
corpus= # path of the corpus
. utils/parse_options.sh
. utils/log.sh

# FILL IN: where to get it; or, if its licence permits, download it here with python -m speechlvm.bin.download.
[ -d "${corpus}" ] || die "the corpus is not at '${corpus}' (relative paths start at ${PWD}); get it and set its \
path: CORPUS= in db.sh, or --corpus DIR"
printf 'corpus: %s\n' "${corpus}"
