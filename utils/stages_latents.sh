# shellcheck shell=bash disable=SC2154
# Sourced by stages.sh: stages 6 to 8 for the representations of one experiment, or for spectra.

analysis_sets="${analysis_sets:-${test_sets%% *}}"

# Calls FUNCTION for each experiment but those of the MODELS, a string of words.
each_but() {
    local -a all=("${selected[@]}") selected=()
    local model
    for model in "${all[@]}"; do
        [[ " $1 " == *" ${model} "* ]] || selected+=("${model}")
    done
    each_experiment "$2"
}

# Whether an analysis is wanted: all are, unless some are named.
wanted() { [ -z "${analyses}" ] || [[ " ${analyses} " == *" $1 "* ]]; }

# Missing labels are an error only if the analysis was requested by name.
optional=()
[ -n "${analyses}" ] || optional=(--optional)

# Whether there are probes to train: on speech that was not cut and, without --analyses, only if the data have labels.
probing() {
    wanted probes && [ "${material}" = pcm16 ] && [[ " ${dump_args[*]} " != *" --segment_frames "* ]] || return 1
    [ -n "${analyses}" ] || [ -f "${datadir}/${train_set}/phones" ] || [ -f "${datadir}/${train_set}/text" ]
}

# Sets that stages 7 and 8 read, one per line.
latent_sets() {
    local set sets="${analysis_sets}"
    ! probing || sets+=" ${train_set} ${valid_set} ${test_sets%% *}"
    for set in ${sets}; do printf '%s\n' "${set}"; done | awk '!seen[$0]++'
}

# Options that limit how much of SET is used: a training set that only probes read is cut to what they train on.
share_of() {
    [ "$1" = "${train_set}" ] && [[ " ${analysis_sets} " != *" $1 "* && " ${probe_minutes} " != *" all "* ]] || return 0
    printf '%s\n' --minutes "$(tr -s ' ' '\n' <<<"${probe_minutes}" | sort -g | tail -n 1)"
}

spectra() {
    local set
    local -a sets share
    mapfile -t sets < <(latent_sets)
    for set in "${sets[@]}"; do
        log "spectra of ${set}"
        mapfile -t share < <(share_of "${set}")
        sharded processors "${nj}" "${root}/spectra/logs/latents_${set}" python -m speechlvm.bin.spectra \
            --dump "${frames}/${set}" --out "${root}/spectra/latents_${set}" "${share[@]}"
    done
}

# Arguments: model, seed and directory of an experiment. For sets that only probes read, only means.
latents() {
    local set
    local -a sets share statistics
    mapfile -t sets < <(latent_sets)
    for set in "${sets[@]}"; do
        log "latents of $1, seed $2, on ${set}"
        mapfile -t share < <(share_of "${set}")
        statistics=(mean)
        [[ " ${analysis_sets} " != *" ${set} "* ]] || statistics=(mean std kl)
        sharded gpu "${nj}" "$3/logs/latents_${set}" python -m speechlvm.bin.latents --exp "$3" \
            --dump "${frames}/${set}" --out "$3/latents_${set}" --latent_samples "${latent_samples}" \
            --statistics "${statistics[@]}" --ngpu $((ngpu > 0)) "${share[@]}" \
            ${max_frames:+--max_frames "${max_frames}"}
    done
}

# Arguments: model, seed and directory of an experiment; for spectra the seed is empty.
analyse() {
    local name set
    local -a names=() stores=() directories=() spectra=() skipped
    for name in levels phones gender height; do
        ! wanted "${name}" || names+=("${name}")
    done
    [ "${#names[@]}" -gt 0 ] || return 0
    read -r -a skipped <<<"${skip_phones}"
    for set in ${analysis_sets}; do
        stores+=("$3/latents_${set}")
        directories+=("${datadir}/${set}")
    done
    [ -z "$2" ] || [ "${material}" != pcm16 ] || spectra=(--spectra "${root}/spectra/analysis")
    log "${names[*]} in $1${2:+, seed $2}"
    single processor "$3/logs/analysis.log" python -m speechlvm.bin.analyse --analysis "${names[@]}" \
        --latents "${stores[@]}" --data "${directories[@]}" --out "$3/analysis" \
        --speaker "${speaker:-}" --classes "${phone_classes}" --skip_phones "${skipped[@]}" \
        "${spectra[@]}" "${optional[@]}"
    show "$3/logs/analysis.log"
}

# Phone durations, if the data have phones: for one speaker (the first, if the recipe names none) and for all.
phone_durations() {
    local set
    local -a directories=()
    for set in ${all_sets}; do
        [ ! -f "${datadir}/${set}/phones" ] || directories+=("${datadir}/${set}")
    done
    if [ "${#directories[@]}" -eq 0 ]; then
        [ -z "${analyses}" ] || die "--analyses durations: ${datadir}/${train_set}/phones: no such file" 1
        log "no durations: ${datadir}/${train_set}/phones: no such file"
        return 0
    fi
    log "durations of phones"
    single processor "${root}/logs/phone_durations.log" python -m speechlvm.bin.durations --data "${directories[@]}" \
        --speaker "${speaker:-}" --exp "${root}" "${pipes[@]}"
}

probe() {
    local test="${test_sets%% *}"
    local -a words minutes spectra=()
    read -r -d '' -a words <<<"${probe_args}" || true
    read -r -a minutes <<<"${probe_minutes}"
    [ -z "$2" ] || spectra=(--spectra "${root}/spectra/probes")
    log "probes on $1${2:+, seed $2}"
    sharded gpu "${nj}" "$3/logs/probes" python -m speechlvm.bin.probe --out "$3/probes" --ngpu $((ngpu > 0)) \
        --train "$3/latents_${train_set}" --train_data "${datadir}/${train_set}" \
        --valid "$3/latents_${valid_set}" --valid_data "${datadir}/${valid_set}" \
        --test "$3/latents_${test}" --test_data "${datadir}/${test}" \
        --minutes "${minutes[@]}" "${words[@]}" "${spectra[@]}" "${optional[@]}"
}
