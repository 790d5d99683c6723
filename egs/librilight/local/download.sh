#!/usr/bin/env bash
# Stage 0: downloads Libri-Light's fine-tuning subset, and LibriSpeech's test sets as its own recipe does, where missing.
set -euo pipefail
finetuning= # the directory librispeech_finetuning, or the one above it
corpus=     # the directory LibriSpeech, or the one above it
sets=""     # LibriSpeech's data directories: dev_clean ...
. utils/parse_options.sh
. utils/log.sh

# Where preparation will find it: also in folders further below.
found="$(find -L "${finetuning}" -maxdepth 8 -name archives -prune -o -type d -name 9h -print -quit 2>/dev/null || true)"
if [ -n "${found}" ]; then
    printf 'corpus: %s contains the fine-tuning subset\n' "${finetuning}"
else
    # Do not download gigabytes to a mistyped path.
    [ -d "${finetuning}" ] || [ "${finetuning}" = downloads ] ||
        die "no directory '${finetuning}' (relative paths start at ${PWD}); set the path of the fine-tuning subset: \
LIBRILIGHT= in db.sh, or --librilight DIR; or create the directory to download to it"
    python -m speechlvm.bin.download --archives local/archives.yaml --to "${finetuning}"
fi

corpus="$(realpath -m -- "${corpus}")"
cd ../librispeech
exec bash local/download.sh --corpus "${corpus}" --sets "${sets}"
