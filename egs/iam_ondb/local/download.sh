#!/usr/bin/env bash
# Stage 0: the database is distributed after registration; this only checks that it exists.
set -euo pipefail
corpus= # path of the corpus
. utils/parse_options.sh
. utils/log.sh

[ -d "${corpus}" ] || die "the corpus is not at '${corpus}' (relative paths start at ${PWD}); register at \
https://fki.tic.heia-fr.ch/databases/iam-on-line-handwriting-database, unpack lineStrokes-all, ascii-all and the lists \
of the task IAM-OnDB-t1 in one directory and set its path: IAM_ONDB= in db.sh, or --iam_ondb DIR"
printf 'corpus: %s\n' "${corpus}"
