# shellcheck shell=bash disable=SC2034
# Sourced: where audio lies on this machine. A relative path starts at the recipe.

WAV_DIR="${WAV_DIR:-downloads/audio}" # a folder of audio files; --wav_dir names another
