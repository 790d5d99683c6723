#!/usr/bin/env bash
# Stage 0: TIMIT is licensed by the LDC and cannot be downloaded; this only checks that it exists.
set -euo pipefail
corpus= # path of the corpus
. utils/parse_options.sh
. utils/log.sh

[ -d "${corpus}" ] || die "the corpus is not at '${corpus}' (relative paths start at ${PWD}); get LDC93S1 from the LDC \
and set its path: TIMIT= in db.sh, or --timit DIR"
printf 'corpus: %s\n' "${corpus}"
