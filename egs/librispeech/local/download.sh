#!/usr/bin/env bash
# Stage 0: downloads those sets of LibriSpeech that are asked for and missing.
set -euo pipefail
corpus=   # the directory LibriSpeech, or the one above it
sets=""   # data directories: train_clean_100 dev_clean ...
mirror="" # address to download from in place of that in archives.yaml; empty: that one
. utils/parse_options.sh
. utils/log.sh

# Where preparation will find them: given a set, in the directory above it; or else in folders further below.
[[ " ${sets//_/-} " != *" $(basename -- "${corpus}") "* ]] || corpus="$(dirname -- "${corpus}")"
named=()
there=
for set in ${sets//_/-}; do
    named+=(-o -name "${set}")
    [ ! -d "${corpus}/${set}" ] && [ ! -d "${corpus}/LibriSpeech/${set}" ] || there=yes
done
if [ -z "${there}" ] && [ -d "${corpus}" ] && [ -n "${sets}" ]; then
    found="$(find -L "${corpus}" -mindepth 2 -maxdepth 8 -name archives -prune -o \
        -type d \( "${named[@]:1}" \) -print -quit 2>/dev/null || true)"
    [ -z "${found}" ] || corpus="$(dirname -- "${found}")"
fi

# Archives bring LibriSpeech/<set>.
to="${corpus}"
[ "$(basename -- "${corpus}")" != LibriSpeech ] || to="$(dirname -- "${corpus}")"

missing=
direct=
elsewhere=
for set in ${sets//_/-}; do
    if [ -d "${corpus}/${set}" ]; then direct+="${direct:+ }${set}"; else elsewhere+="${elsewhere:+ }${set}"; fi
    [ ! -d "${corpus}/${set}" ] && [ ! -d "${corpus}/LibriSpeech/${set}" ] || continue
    missing+="${missing:+ }${set}"
done
# In one place they are a corpus; what would be downloaded comes to another one than what is there.
[ -z "${direct}" ] || [ -z "${elsewhere}" ] || [ "${to}" != "${corpus}" ] ||
    die "'${corpus}' itself holds ${direct}, but ${elsewhere} would be in '${corpus}/LibriSpeech', where archives are \
unpacked; rename '${corpus}' to LibriSpeech and give that path, or move what it holds there"
if [ -z "${missing}" ]; then
    printf 'corpus: %s holds %s\n' "${corpus}" "${sets//_/-}"
    exit 0
fi
# A path with a slip in it is not filled with gigabytes.
[ -d "${to}" ] || [ "$(realpath -m -- "${to}")" = "$(realpath -m -- downloads)" ] ||
    die "no directory '${to}' (a relative path starts at ${PWD}); say where LibriSpeech lies: LIBRISPEECH= in db.sh, or \
--librispeech DIR; or make the directory, if it is to be downloaded there"
exec python -m speechlvm.bin.download --archives local/archives.yaml --only "${missing}" --to "${to}" \
    --mirror "${mirror}"
