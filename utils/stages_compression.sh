# shellcheck shell=bash disable=SC2154
# Sourced by stages.sh: stage 9 for one experiment, or for the adaptive reference.

# Arguments: model, seed and directory of an experiment.
compress() {
    local trained
    [ -f "$3/config.yaml" ] || return 0 # never trained
    log "compress with $1, seed $2"
    trained="$(trained_on "$3")"
    case "${trained}" in
    linear | mulaw | mulaw-pcm) roundtrip "$3" "$3/logs/compress.log" --exp "$3" ;;
    *) log "  no files: trained on ${trained}" ;;
    esac
}

compress_adaptive() {
    in_tables adaptive || return 0
    log "compress with adaptive"
    roundtrip "${root}/adaptive" "${root}/logs/compress_adaptive.log" --adaptive
}

# Arguments: directory of a model's results, log, and options that name the model.
roundtrip() {
    local out="$1/compressed_${test_sets%% *}" logfile="$2"
    shift 2
    single processor "${logfile}" python -m speechlvm.bin.roundtrip "$@" --dump "${frames}/${test_sets%% *}" \
        --out "${out}" --utterances "${compress_utterances}"
    show "${logfile}"
}
