#!/usr/bin/env bash
# Stage 0: the audio is your own; this only finds out whether it is there.
set -euo pipefail
wav_dir= # where it should be
. utils/parse_options.sh
. utils/log.sh

[ -d "${wav_dir}" ] || die "no folder '${wav_dir}' (a relative path starts at ${PWD}); say where your audio files lie: \
--wav_dir DIR, or WAV_DIR= in db.sh"
printf 'audio: %s\n' "${wav_dir}"
