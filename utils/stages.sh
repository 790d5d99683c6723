# shellcheck shell=bash disable=SC2154
# Sourced by each run.sh after parse_options.sh: the stages, the same in every recipe. A recipe sets
#   train_set valid_set test_sets      names of its sets
#   download_args data_args            arrays: arguments of local/download.sh and local/data.sh
# and, if the defaults do not fit,
#   material                           dumps that models are trained on: pcm16 (audio) or vectors
#   dump_args                          array: further arguments of the dump program
#   sample_args                        array: further arguments of the sampling program
#   disjoint                           utterances, if speakers of the test sets may occur in training
#   speaker                            speaker whose phones and durations are shown
# Each stage skips complete results, redoes incomplete ones, and can run alone.
# Exit status: 0; 1 if something failed; 2 for wrong usage; 75 if interrupted (run the same command again).
set -euo pipefail

_utils="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)"
# shellcheck source=SCRIPTDIR/log.sh
. "${_utils}/log.sh"
. ./cmd.sh
# shellcheck source=SCRIPTDIR/check_options.sh
. "${_utils}/check_options.sh"
. ./path.sh
# shellcheck source=SCRIPTDIR/jobs.sh
. "${_utils}/jobs.sh"

titles=("download" "data directories" "dumps" "train" "score" "sample and reconstruct" "latents" "latent analysis"
    "probes" "compression" "tables and figures")

# --- The programs ------------------------------------------------------------------------------------------------------

root="${expdir}/${train_set}"
results="${results:-${root}/RESULTS.md}"
all_sets="${train_set} ${valid_set} ${test_sets}"
declare -a dump_args sample_args # empty where a recipe sets none
material="${material:-pcm16}"
frames="${dumpdir}/${material}" # training material of the models
pipes=()
[ "${allow_pipes}" = false ] || pipes=(--allow_pipes)
read -r -d '' -a train_words <<<"${train_args}" || true # all its lines
# shellcheck source=SCRIPTDIR/stages_references.sh
. "${_utils}/stages_references.sh"
# shellcheck source=SCRIPTDIR/stages_latents.sh
. "${_utils}/stages_latents.sh"
# shellcheck source=SCRIPTDIR/stages_compression.sh
. "${_utils}/stages_compression.sh"

# Calls FUNCTION with model, seed and directory of each experiment: on a cluster all at once, on this machine as many as
# there are --nthreads CPUs for (without it, and on GPUs, one by one). If one fails, the others continue.
each_experiment() {
    experiments start_with_room "$1"
    join
}

# Calls COMMAND with model, seed and directory of each experiment, one by one.
experiments() {
    local model number
    for model in "${selected[@]}"; do
        for number in ${seeds}; do
            "$@" "${model}" "${number}" "${root}/${model}${tag:+_${tag}}/seed${number}"
        done
    done
}

# Arguments: set, kind and, if it is not the recipe's own, the set's directory.
dump() {
    log "dump $2 of $1"
    sharded processors "${nj}" "${dumpdir}/logs/$2_$1" \
        python -m speechlvm.bin.dump --data "${3:-${datadir}/$1}" --out "${dumpdir}/$2/$1" --kind "$2" "${dump_args[@]}" "${pipes[@]}"
}

train() {
    log "train $1, seed $2"
    single train "$3/logs/train.log" python -m speechlvm.bin.train --config "conf/$1.yaml" \
        --train "${frames}/${train_set}" --valid "${frames}/${valid_set}" \
        --out "$3" --seed "$2" --ngpu "${ngpu}" --num_nodes "${num_nodes}" \
        ${max_frames:+--data.max_frames "${max_frames}"} "${train_words[@]}"
}

# The coding that the experiment in DIRECTORY was trained with; nothing if it was not yet.
trained_on() { sed -n 's/^coding: *//p' "$1/config.yaml" 2>/dev/null || true; }

# Whether, as far as known, the network of the experiment in DIRECTORY has the same inputs under CODING as under that
# of its training.
same_inputs() {
    local trained
    trained="$(trained_on "$1")"
    case "${trained}>$2" in
    ">$2" | "mulaw>mulaw-pcm" | "mulaw-pcm>mulaw") return 0 ;;
    "$2>$2") return 1 ;; # scored in any case
    esac
    log "  no score over the cells of $2: trained on ${trained}"
    return 1
}

# Starts scoring an experiment: each set over the cells of each coding.
start_scores() {
    local set coding
    for set in ${test_sets}; do
        for coding in "" ${codings}; do
            [ -z "${coding}" ] || same_inputs "$3" "${coding}" || continue
            start_with_room score "$@" "${set}" "${coding}"
        done
    done
}

score() {
    local out="score_$4${5:+_$5}"
    log "score $1, seed $2, on $4${5:+ over the cells of $5}"
    [ "${bound}" = elbo ] || out+="_${bound}${particles}"
    sharded gpu "${nj}" "$3/logs/${out}" python -m speechlvm.bin.score --exp "$3" \
        --dump "${frames}/$4" --out "$3/${out}" \
        --bound "${bound}" --particles "${particles}" --ngpu $((ngpu > 0)) ${5:+--coding "$5"} \
        ${max_frames:+--max_frames "${max_frames}"}
}

# All scores so far, as a table.
likelihoods() { run python -m speechlvm.bin.likelihoods --exp "${root}"; }

sample() {
    log "sample $1, seed $2"
    single gpu "$3/logs/sample.log" python -m speechlvm.bin.sample --exp "$3" \
        --dump "${frames}/${test_sets%% *}" --out "$3/samples" --seconds "${sample_seconds}" --ngpu $((ngpu > 0)) "${sample_args[@]}"
}

sample_adaptive() {
    [ "${material}" = pcm16 ] && in_tables adaptive || return 0
    log "sample adaptive"
    single processor "${root}/logs/sample_adaptive.log" python -m speechlvm.bin.sample --adaptive \
        --dump "${frames}/${test_sets%% *}" --out "${root}/adaptive/samples" --seconds "${sample_seconds}" "${sample_args[@]}"
}

# The command that produces the reported results: the given one without the stages.
command_line() {
    local name
    printf 'bash %s' "${0##*/}"
    for name in "${given_options[@]}"; do
        [[ "${name}" == *stage ]] || printf ' --%s %q' "${name}" "${!name}"
    done
}

report() {
    local status=0
    log "tables and figures"
    single processor "${root}/logs/report.log" python -m speechlvm.bin.report --exp "${root}" --tables conf/tables \
        --out "${results}" --only "${tables}" --command "$(command_line)" || status=$?
    each_experiment page || status=$?
    return "${status}" # of the failed part; the rest is written
}

# Arguments: model, seed and directory of an experiment.
page() {
    [ -f "$3/config.yaml" ] || return 0 # never trained: its rows in the tables are blank
    log "page of $1, seed $2"
    single processor "$3/logs/page.log" python -m speechlvm.bin.page --exp "$3"
}

# --- The stages --------------------------------------------------------------------------------------------------------

stage_0() { hook local/download.sh "${datadir}/logs/download.log" "${download_args[@]}"; }

stage_1() {
    local set
    local -a directories=()
    hook local/data.sh "${datadir}/logs/data.log" "${data_args[@]}"
    for set in ${all_sets}; do directories+=("${datadir}/${set}"); done
    log "check ${directories[*]}"
    run validate_data_dir.sh "${pipes[@]}" --disjoint "${disjoint:-speakers}" "${directories[@]}"
}

stage_2() {
    local set kind
    for kind in "${material}" ${dumps}; do
        for set in ${all_sets}; do dump "${set}" "${kind}"; done
    done
}

stage_3() { each_experiment train; }

stage_4() {
    local coding
    if [ -n "${score_dir}" ]; then
        local test_sets="${score_set}" # also in the functions called below
        dump "${score_set}" "${material}" "${score_dir}"
    fi
    codecs # first: a malformed list of them stops the stage before anything is scored
    start_with_room baseline uniform mulaw 1
    for coding in mulaw ${codings}; do start_with_room baseline dmol "${coding}" 1; done
    start_with_room baseline flac mulaw "${nj}"
    start_with_room baseline flac-cli mulaw "${nj}"
    start_with_room baseline adaptive mulaw "${nj}"
    experiments start_scores
    join
    likelihoods
}

stage_5() {
    start_with_room sample_adaptive
    each_experiment sample
    [ ! -f local/draw.sh ] || hook local/draw.sh "${root}/logs/draw.log" --exp "${root}" --dump "${frames}/${test_sets%% *}" \
        --models "${selected[*]/%/${tag:+_${tag}}}" --seeds "${seeds}"
}

stage_6() {
    [ "${material}" != pcm16 ] || start_with_room spectra
    each_but "${skip_analysis}" latents
}

stage_7() {
    ! wanted durations || phone_durations
    [ "${material}" != pcm16 ] || analyse spectra "" "${root}/spectra"
    each_but "${skip_analysis}" analyse
}

stage_8() {
    wanted probes || { log "  no probes: not among --analyses ${analyses}"; return 0; }
    if ! probing; then
        [ -z "${analyses}" ] || die "--analyses probes: probes are for speech, not for ${material} ${dump_args[*]}" 1
        log "  no probes: neither phones nor text of uncut speech in ${datadir}/${train_set}"
        return 0
    fi
    probe spectra "" "${root}/spectra"
    each_but "${skip_analysis}" probe
}

stage_9() {
    baseline flac mulaw "${nj}"
    [ "${material}" = pcm16 ] || { log "  no files: of audio only"; return 0; }
    start_with_room compress_adaptive
    each_but "${skip_compression}" compress
}
stage_10() { report; }

for ((number = stage; number <= stop_stage && number <= 10; number++)); do
    current="stage ${number} (${titles[number]})"
    began=${SECONDS}
    log "${current} starts"
    "stage_${number}"
    log "${current} ended after $(duration $((SECONDS - began)))"
done
current=
[ "${stop_stage}" -lt 10 ] || likelihoods
log "done after $(duration "${SECONDS}")"
log "experiments: ${root}, results: ${results}"
