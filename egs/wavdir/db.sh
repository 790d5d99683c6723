# shellcheck shell=bash disable=SC2034
# Sourced: path of the audio. Relative paths start at the recipe.

WAV_DIR="${WAV_DIR:-downloads/audio}" # a folder of audio files; --wav_dir names another
