#!/usr/bin/env bash
# festvox-ru: 1.66 hours of a Russian speaker with phone labels and text, free to use, from a Debian package. Stage 0
# gets it with apt-get; each of six systems trains for about ten minutes on one core. `bash run.sh --help` lists the
# options.
# shellcheck disable=SC2034 # read by the shared stages
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. utils/options.sh
. ./db.sh

# Changed defaults, and the recipe's own options.
codings="mulaw-pcm"  # bits of the PCM signal in addition to bits of mu-law codes
festvox_ru="${FESTVOX_RU}" # the package (.deb), a folder it was unpacked in, or the voice's; relative paths start at the recipe
data_root=""         # the same, under a name shared by all recipes
sample_seconds=1     # duration of generated samples in seconds; a WaveNet generates 16 000 frames for each
latent_samples=10    # posterior samples that stage 6 averages over; 100 take ten times as long
skip_analysis="wavenet_s1 experts_wavenet_s1" # models that stages 6 to 8 skip; at s = 1 they take long
skip_compression="wavenet_s1 experts_wavenet_s1" # models that stage 9 skips; at s = 1 it takes half an hour
skip_phones="pau"    # phone labels that stage 7 leaves out: silence
probe_minutes="10" # minutes of labelled speech to train probes on
probe_args="--seeds 1 --steps 1000 --batch_steps 1600 --hidden 128 --learning_rate 0.005" # further arguments of the probes; the defaults are for larger corpora
max_bad=0 # maximum number of unusable audio files, which are left out and listed in data/rejected.tsv
. utils/parse_options.sh

train_set=train
valid_set=valid
test_sets="test"
disjoint=utterances # there is one speaker

corpus="${data_root:-${festvox_ru}}"
package=""
if [[ "${corpus}" == *.deb ]]; then
    package="${corpus}"
    corpus="downloads/$(basename -- "${package}" .deb)"
fi
download_args=(--package "${package}" --corpus "${corpus}")
data_args=(--corpus "${corpus}" --out "${datadir}" --max_bad "${max_bad}")

. utils/stages.sh
