#!/usr/bin/env bash
# Stage 0: the audio is your own; this only checks that it exists.
set -euo pipefail
wav_dir= # path of the corpus
. utils/parse_options.sh
. utils/log.sh

[ -d "${wav_dir}" ] || die "no folder '${wav_dir}' (relative paths start at ${PWD}); set the path of your audio files: \
--wav_dir DIR, or WAV_DIR= in db.sh"
printf 'audio: %s\n' "${wav_dir}"
