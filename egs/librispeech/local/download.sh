#!/usr/bin/env bash
# Stage 0: downloads the requested sets of LibriSpeech that are missing.
set -euo pipefail
corpus=   # the directory LibriSpeech, or the one above it
sets=""   # data directories: train_clean_100 dev_clean ...
mirror="" # address to download from instead of that in archives.yaml
. utils/parse_options.sh
. utils/log.sh

# Where preparation will find them: given a set, in the directory above it; otherwise in folders further below.
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

# Archives contain LibriSpeech/<set>.
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
# All sets must be in one directory: downloaded ones would be in a different one from those that exist.
[ -z "${direct}" ] || [ -z "${elsewhere}" ] || [ "${to}" != "${corpus}" ] ||
    die "'${corpus}' itself contains ${direct}, but ${elsewhere} would be in '${corpus}/LibriSpeech', where archives \
are unpacked; rename '${corpus}' to LibriSpeech and give that path, or move its contents there"
if [ -z "${missing}" ]; then
    printf 'corpus: %s contains %s\n' "${corpus}" "${sets//_/-}"
    exit 0
fi
# Do not download gigabytes to a mistyped path.
[ -d "${to}" ] || [ "$(realpath -m -- "${to}")" = "$(realpath -m -- downloads)" ] ||
    die "no directory '${to}' (relative paths start at ${PWD}); set the path of LibriSpeech: LIBRISPEECH= in db.sh, or \
--librispeech DIR; or create the directory to download to it"
exec python -m speechlvm.bin.download --archives local/archives.yaml --only "${missing}" --to "${to}" \
    --mirror "${mirror}"
