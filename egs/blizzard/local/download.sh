#!/usr/bin/env bash
# Stage 0: the audiobooks are distributed by the University of Edinburgh under a licence; this only checks that
# they exist.
set -euo pipefail
corpus= # path of the corpus
. utils/parse_options.sh
. utils/log.sh

[ -d "${corpus}" ] || die "the corpus is not at '${corpus}'; accept the licence at \
https://www.cstr.ed.ac.uk/projects/blizzard/2013/lessac_blizzard2013/license.html, get \
Lessac_Blizzard2013_CatherineByers_train.tar.bz2, and set its path: BLIZZARD= in db.sh, or --blizzard DIR"
printf 'corpus: %s\n' "${corpus}"
