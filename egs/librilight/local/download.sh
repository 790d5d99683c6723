#!/usr/bin/env bash
# Stage 0: downloads Libri-Light's fine-tuning subset, and LibriSpeech's test sets as its own recipe does, where missing.
set -euo pipefail
finetuning= # the directory librispeech_finetuning, or the one above it
corpus=     # the directory LibriSpeech, or the one above it
sets=""     # LibriSpeech's data directories: dev_clean ...
. utils/parse_options.sh
. utils/log.sh

# Where preparation will find it: in folders further below, too.
found="$(find -L "${finetuning}" -maxdepth 8 -name archives -prune -o -type d -name 9h -print -quit 2>/dev/null || true)"
if [ -n "${found}" ]; then
    printf 'corpus: %s holds the fine-tuning subset\n' "${finetuning}"
else
    # A path with a slip in it is not filled with gigabytes.
    [ -d "${finetuning}" ] || [ "${finetuning}" = downloads ] ||
        die "no directory '${finetuning}' (a relative path starts at ${PWD}); say where the fine-tuning subset lies: \
LIBRILIGHT= in db.sh, or --librilight DIR; or make the directory, if it is to be downloaded there"
    python -m speechlvm.bin.download --archives local/archives.yaml --to "${finetuning}"
fi

corpus="$(realpath -m -- "${corpus}")"
cd ../librispeech
exec bash local/download.sh --corpus "${corpus}" --sets "${sets}"
