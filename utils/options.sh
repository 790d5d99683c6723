# shellcheck shell=bash disable=SC2034
# Sourced by every run.sh: the options that all recipes have, and their defaults. A recipe sets others after it.

stage=0           # first stage: 0 download, 1 data, 2 dumps, 3 train, 4 score, 5 sample, 6 latents, 7 latent analysis, 8 probes, 9 compression, 10 tables
stop_stage=10     # last stage
models="all"      # systems, names of conf/*.yaml; all: every one of them
tables=""         # only the systems in these tables, names of conf/tables/*.yaml
seeds="1"         # one training for each of these numbers
tag=""            # name of this variant; keeps experiments with other settings apart
train_args=""     # settings in place of those in conf/*.yaml, as "--limits.seconds 60 --data.workers 2"
codings=""        # score over the cells of these codings too, where the network sees the same inputs: "mulaw-pcm" for mulaw
samples=1         # samples of the latents for a bound; more than one: importance-weighted
sample_seconds=2  # length of what stage 5 generates
dumps=""          # what stage 2 writes beside what models are trained on, of mulaw logmel
num_samples=100   # samples of the latents that stage 6 averages over
skip_analysis=""  # of the systems, those that stages 6 to 8 leave out
analyses=""       # of stages 7 and 8: levels phones gender height durations probes; empty: all for which the data have labels
analysis_sets=""  # sets whose utterances stage 7 looks at together; empty: the first test set
phone_classes=61  # classes of phones in stage 7: 61, or 39, the usual folding
skip_phones=""    # phones that stage 7 leaves out of these, as they are labelled in the data: "h# pau epi"
probe_minutes="10 60 all" # minutes of labelled speech that probes are trained on
probe_args=""     # further arguments of the probes, as "--steps 500 --vocabulary 100"
allow_pipes=false # run commands that stand in a wav.scp
max_frames=""     # memory: longer utterances are trained in pieces of at most so many frames, and scored piece by piece, which changes no score; empty: by the models' batch_frames
nj=2              # jobs that dumping, scoring, extraction and probes are divided into
ngpu=0            # GPUs of one training, on each node; other jobs take one; 0: the CPU
num_nodes=1       # machines that one training runs on (cmd_backend=slurm)
nthreads=0        # processors that one training uses on a machine; 0: all of this one, 4 on a cluster
datadir=data      # data directories; a relative path starts at the recipe
dumpdir=dump      # dumps
expdir=exp        # experiments, as exp/<train_set>/<model>[_<tag>]/seed<k>
results=RESULTS.md # what stage 10 writes

option_files=("${BASH_SOURCE[0]}")
