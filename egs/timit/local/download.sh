#!/usr/bin/env bash
# Stage 0: TIMIT is licensed by the LDC and cannot be downloaded; this only finds out whether it is there.
set -euo pipefail
corpus= # where it should be
. utils/parse_options.sh
. utils/log.sh

[ -d "${corpus}" ] || die "the corpus is not at '${corpus}' (a relative path starts at ${PWD}); get LDC93S1 from the LDC \
and say where it lies: TIMIT= in db.sh, or --timit DIR"
printf 'corpus: %s\n' "${corpus}"
