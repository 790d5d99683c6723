#!/usr/bin/env bash
# A small recipe with its own corpus: sets up the environment, synthesises about 15 minutes of speech, then trains,
# scores, samples and analyses four systems and prints a likelihood table. `bash run.sh --help` lists the options.
# shellcheck disable=SC2034 # read by the shared stages
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. utils/options.sh

# Changed defaults, and the recipe's own options.
models="wavenet_s1 lstm_s64 cwvae_l1_s64 cwvae_l2_s64" # models to train, basenames of conf/*.yaml; all: every one of them
sample_seconds=0.5       # duration of generated samples in seconds; a WaveNet generates 16 000 frames for each
codings="mulaw-pcm"     # bits of the PCM signal in addition to bits of mu-law codes
latent_samples=2        # posterior samples that stage 6 averages over; 100 take 50 times as long
skip_analysis="wavenet_s1 lstm_s1" # models that stages 6 to 8 skip; at s = 1 they take minutes
skip_compression="wavenet_s1 lstm_s1" # models that stage 9 skips; at s = 1 it takes minutes
compress_utterances=2   # utterances of the first test set that stage 9 compresses, spread evenly over it; all: every one
analyses="levels phones gender probes"
analysis_sets="test" # sets that stage 7 analyses, pooled; each speaker takes ten seconds per system
probe_minutes="3"
probe_args="--tasks phones frames --seeds 1 --steps 200 --batch_steps 800 --hidden 64 --learning_rate 0.005" # further arguments of the probes; the defaults are for larger corpora
nj=1             # number of parallel jobs; more would spend their time loading libraries
nthreads=1       # CPU threads of a training; with one, the order of sums is the same on every machine
valid_by=speaker # how the validation set is drawn from the training set: 4 whole speakers (speaker), or utterances (utterance)
smoke=false      # true: six steps of training, results in smoke/, to check that everything runs
. utils/parse_options.sh

train_set=train
valid_set=valid
test_sets="test"

if [ "${smoke}" = true ]; then
    train_args="--limits.steps 6 --validation.every_steps 3 ${train_args}"
    probe_args="${probe_args} --steps 5 --hidden 16"
    [[ " ${given_options[*]} " == *" latent_samples "* ]] || latent_samples=2
    [[ " ${given_options[*]} " == *" expdir "* ]] || expdir=smoke/exp
fi
download_args=(--out "${datadir}/corpus")
data_args=(--corpus "${datadir}/corpus" --out "${datadir}" --valid_by "${valid_by}")

. utils/stages.sh
