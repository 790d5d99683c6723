#!/usr/bin/env bash
# Stage 0: finds the voice, or unpacks Debian's package of it, which apt-get downloads if none is given. Nothing is
# installed, and no root is needed.
set -euo pipefail
package= # Debian package to unpack; empty: download it, if the corpus is to be in the recipe's downloads
corpus=  # folder of the voice, or one above it
. utils/parse_options.sh
. utils/log.sh

version=0.5+dfsg-6
sha256=21ef3f0f2978ecf2e2eddb367cb0ff4a72572196d28dc69feb84f4177af5e6c4
remedy="get Debian's package festvox-ru (festvox-ru_${version}_all.deb, 179 MB) and set its path: FESTVOX_RU= in db.sh, \
or --festvox_ru FILE, or --festvox_ru DIR where it is unpacked"

if [ -d "${corpus}" ]; then
    printf 'corpus: %s\n' "${corpus}"
    exit 0
fi
if [ -n "${package}" ]; then
    [ -f "${package}" ] || die "no file '${package}' (relative paths start at ${PWD}); ${remedy}"
elif [ "${corpus}" != downloads/festvox-ru ]; then
    die "the corpus is not at '${corpus}' (relative paths start at ${PWD}); ${remedy}"
elif ! command -v apt-get >/dev/null; then
    die "no apt-get here to download the corpus with; ${remedy}"
else
    log "downloading Debian's package festvox-ru, 179 MB (BSD-like licence, see README.md)"
    rm -rf downloads/archives
    mkdir -p downloads/archives
    (cd downloads/archives && apt-get -q download festvox-ru) ||
        die "apt-get cannot download festvox-ru; update its lists (apt-get update), or ${remedy}"
    package="$(printf '%s' downloads/archives/*.deb)"
fi

[[ "$(sha256sum <"${package}")" == "${sha256} "* ]] ||
    printf 'warning: %s: not the package of version %s, for which the counts and figures of README.md are\n' \
        "${package}" "${version}" >&2
log "unpacking ${package}"
if command -v dpkg-deb >/dev/null; then
    rm -rf -- "${corpus}.part"
    mkdir -p -- "${corpus}.part"
    dpkg-deb -x "${package}" "${corpus}.part" ||
        die "${package}: dpkg-deb cannot unpack it; download it again, or check the space on the disk"
    mv -- "${corpus}.part" "${corpus}"
else
    python local/unpack.py --package "${package}" --to "${corpus}"
fi
rm -rf downloads/archives
printf 'corpus: %s\n' "${corpus}"
