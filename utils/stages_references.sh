# shellcheck shell=bash disable=SC2154
# Sourced by stages.sh: scores that need no trained network.

# Arguments: name, coding and number of jobs of a baseline.
baseline() {
    local name="$1"
    [ "${material}" = pcm16 ] && in_tables "$1" || return 0
    [ "$2" = mulaw ] || [ "$1" = flac ] || name="$1_$2"
    reference "${name}" "$3" --name "$1" --coding "$2"
}

# Each codec of the recipe's conf/codecs.yaml, or else of the shared one, whose program is installed.
codecs() {
    local file=conf/codecs.yaml listed name missing
    [ "${material}" = pcm16 ] && in_tables flac || return 0
    [ -f "${file}" ] || file="${_utils}/${file}"
    listed="$(python -m speechlvm.bin.codecs "${file}")"
    while read -r name missing && [ -n "${name}" ]; do
        [ -z "${missing}" ] || { log "no ${name}: its program ${missing} is not installed"; continue; }
        start_with_room reference "${name}" "${nj}" --name "${name}" --codecs "${file}"
    done <<<"${listed}"
}

# Arguments: directory, number of jobs and options of a baseline or codec.
reference() {
    local set
    for set in ${test_sets}; do
        log "score $1 on ${set}"
        sharded processors "$2" "${root}/logs/$1_${set}" python -m speechlvm.bin.baseline "${@:3}" \
            --train "${frames}/${train_set}" --dump "${frames}/${set}" --out "${root}/$1/score_${set}"
    done
}
