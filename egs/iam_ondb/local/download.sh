#!/usr/bin/env bash
# Stage 0: the database is given out after registration; this only finds out whether it is there.
set -euo pipefail
corpus= # where it should be
. utils/parse_options.sh
. utils/log.sh

[ -d "${corpus}" ] || die "the corpus is not at '${corpus}' (a relative path starts at ${PWD}); register at \
https://fki.tic.heia-fr.ch/databases/iam-on-line-handwriting-database, unpack lineStrokes-all, ascii-all and the lists \
of the task IAM-OnDB-t1 in one directory and say where: IAM_ONDB= in db.sh, or --iam_ondb DIR"
printf 'corpus: %s\n' "${corpus}"
