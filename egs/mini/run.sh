#!/usr/bin/env bash
# The small recipe that brings its own corpus: sets itself up, synthesises about 15 minutes of speech, then trains,
# scores, samples and dissects four systems and prints a likelihood table. `bash run.sh --help` lists the options.
# shellcheck disable=SC2034 # read by the shared stages
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. utils/options.sh

# What is different here from the defaults, and the recipe's own options.
models="wavenet_s1 lstm_s64 cwvae_l1_s64 cwvae_l2_s64" # systems, names of conf/*.yaml; all: every one of them
sample_seconds=0.5       # a WaveNet draws 16 000 frames a second for each
codings="mulaw-pcm"     # bits of the PCM signal beside bits of mu-law codes
latent_samples=2        # posterior samples that stage 6 averages over; with 100 it takes 50 times as long
skip_analysis="wavenet_s1 lstm_s1" # at s = 1 it takes minutes to look at all frames
analyses="levels phones gender probes"
analysis_sets="test" # sets whose utterances stage 7 looks at together; each speaker takes ten seconds a system
probe_minutes="3"
probe_args="--tasks phones frames --seeds 1 --steps 200 --batch_steps 800 --hidden 64 --learning_rate 0.005" # further arguments of the probes, whose defaults are for larger corpora
nj=1             # more processes would load their libraries for longer than they work
nthreads=1       # a system is trained by one processor, so that sums are made in the same order on every machine
valid_by=speaker # how the validation set is drawn from the training set: 4 whole speakers, or utterances (utterance)
smoke=false      # few steps of training, results in smoke/: only shows that everything runs
. utils/parse_options.sh

train_set=train
valid_set=valid
test_sets="test"

if [ "${smoke}" = true ]; then
    train_args="--limits.steps 6 --validation.every_steps 3 ${train_args}"
    probe_args="${probe_args} --steps 5 --hidden 16"
    [[ " ${given_options[*]} " == *" latent_samples "* ]] || latent_samples=2
    [[ " ${given_options[*]} " == *" expdir "* ]] || expdir=smoke/exp
    [[ " ${given_options[*]} " == *" results "* ]] || results=smoke/RESULTS.md
fi
download_args=(--out "${datadir}/corpus")
data_args=(--corpus "${datadir}/corpus" --out "${datadir}" --valid_by "${valid_by}")

. utils/stages.sh
