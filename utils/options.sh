# shellcheck shell=bash disable=SC2034
# Sourced by every run.sh: the options of all recipes, and their defaults. A recipe changes defaults and adds options.

stage=0           # first stage: 0 download, 1 data, 2 dumps, 3 train, 4 score, 5 sample, 6 latents, 7 latent analysis, 8 probes, 9 compression, 10 tables
stop_stage=10     # last stage; stages skip results that are complete
models="all"      # models to train, basenames of conf/*.yaml; all: every one of them
tables=""         # only the models in these tables, basenames of conf/tables/*.yaml
seeds="1"         # random seeds; one training for each
tag=""            # suffix of the experiments' names; keeps variants apart
train_args=""     # settings that override conf/*.yaml, e.g. "--limits.seconds 60 --data.workers 2"
codings=""        # further codings to score in, if the network's inputs are the same: "mulaw-pcm" for mulaw
bound=elbo        # on likelihoods with latents: elbo, as in the papers' tables; tighter, beside it: iwae, fivo
particles=16      # samples K of iwae, particles of fivo
score_dir=""      # a further set that stage 4 scores in place of the test sets: a data directory, or a folder of 16-bit mono audio files
sample_seconds=2  # duration of generated samples in seconds
dumps=""          # further dumps of stage 2, for other toolkits: mulaw logmel
latent_samples=100 # posterior samples that stage 6 averages over; fewer where that would draw more than 1e11 numbers
skip_analysis=""  # models that stages 6 to 8 skip
analyses=""       # analyses of stages 7 and 8: levels phones gender height durations probes; empty: all that the data have labels for
analysis_sets=""  # sets that stage 7 analyses, pooled; empty: the first test set
phone_classes=61  # phone classes of stage 7: 61, or 39 (the usual folding)
skip_phones=""    # phone labels that stage 7 leaves out, e.g. "h# pau epi"
probe_minutes="10 60 all" # minutes of labelled speech to train probes on
probe_args=""     # further arguments of the probes, e.g. "--steps 500 --vocabulary 100"
skip_compression="" # models that stage 9 skips
compress_utterances=32 # utterances of the first test set that stage 9 compresses, spread evenly over it; all: every one
allow_pipes=false # run commands in wav.scp
max_frames=""     # maximum frames in memory: longer utterances are trained in segments and scored in chunks (same scores); empty: the models' batch_frames
nj=2              # number of parallel jobs for dumping, scoring, extraction and probes
ngpu=0            # GPUs per node for training; other jobs use one; 0: CPU
num_nodes=1       # nodes for training (cmd_backend=slurm)
nthreads=0        # CPU threads for training; 0: all of this machine, 4 on a cluster
datadir=data      # data directories; relative paths start at the recipe
dumpdir=dump      # dumps
expdir=exp        # experiments: exp/<train_set>/<model>[_<tag>]/seed<k>
results=""        # Markdown file of tables that stage 10 writes; empty: exp/<train_set>/RESULTS.md

option_files=("${BASH_SOURCE[0]}")
