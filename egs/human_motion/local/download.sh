#!/usr/bin/env bash
# Stage 0: the CMU database's archive of all ASF and AMC files, unless the corpus is there.
set -euo pipefail
corpus= # path of the corpus
mirror= # address to download from instead
. utils/parse_options.sh
. utils/log.sh

if [ -d "${corpus}" ]; then
    printf 'corpus: %s\n' "${corpus}"
    exit 0
fi
[ "${corpus}" = downloads/all_asfamc/subjects ] || die "the corpus is not at '${corpus}'; set its path: MOCAP= in \
db.sh, or --mocap DIR; without these it is downloaded"
exec python -m speechlvm.bin.download --archives local/archives.yaml --to downloads ${mirror:+--mirror "${mirror}"}
