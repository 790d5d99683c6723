# shellcheck shell=bash disable=SC2154
# Sourced by stages.sh: checks the values of all shared options before anything is done, and finds the systems that they
# select (array selected). Wrong usage is one line and exit status 2.

usage() { die "$1 (--help lists the options)" 2; }

# Arguments: name, minimum and maximum of an integer option.
check_number() {
    [[ "${!1}" =~ ^(0|[1-9][0-9]{0,8})$ ]] && [ "${!1}" -ge "$2" ] && [ "${!1}" -le "$3" ] ||
        usage "--$1 '${!1}': expected an integer from $2 to $3"
}

check_words() {
    local option="$1" word
    shift
    for word in ${!option}; do
        [[ " $* " == *" ${word} "* ]] || usage "--${option}: unknown '${word}'; expected: $*"
    done
}

visible_gpus() {
    if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
        printf '%s' "${CUDA_VISIBLE_DEVICES}" | tr ',' '\n' | grep -c -v -e '^-1$' -e '^$' || true
    else
        nvidia-smi -L 2>/dev/null | grep -c '^GPU ' || true
    fi
}

[ $# -eq 0 ] || usage "unexpected argument '$1'"
check_number stage 0 10
check_number stop_stage 0 999999999
[ "${stage}" -le "${stop_stage}" ] || usage "--stage ${stage} --stop_stage ${stop_stage}: stop_stage precedes stage"
check_number nj 1 100000
check_number nthreads 0 100000
[ "${cmd_backend}" = local ] || [ "${nthreads}" -gt 0 ] || nthreads=4 # other people's nodes
check_number particles 2 1000000
[[ "${bound}" =~ ^(elbo|iwae|fivo)$ ]] || usage "--bound '${bound}': expected elbo, iwae or fivo"
check_number latent_samples 1 1000000
[ "${compress_utterances}" = all ] || check_number compress_utterances 1 999999999
check_number ngpu 0 64
check_number num_nodes 1 1000
positive='^0*([1-9][0-9]*([.][0-9]+)?|[.]0*[1-9][0-9]*)([eE][-+]?[0-9]{1,2})?$'
# Durations and lengths, also of the recipe: they may be used only after days of training.
for option in "${given_options[@]}"; do
    case "${option}" in
    *_seconds) [[ "${!option}" =~ ${positive} ]] ||
        usage "--${option} '${!option}': expected a number of seconds above 0" ;;
    *_frames) check_number "${option}" 1 999999999 ;;
    esac
done
[[ " ${given_options[*]} " != *" sample_seconds "* || " ${sample_args[*]:-} " != *" --frames "* ]] ||
    usage "--sample_seconds ${sample_seconds}: this recipe sets the length of samples in frames"
if [ "${cmd_backend:-local}" = local ] && [ "${ngpu}" -gt 0 ] && [ "${ngpu}" -gt "$(visible_gpus)" ]; then
    usage "--ngpu ${ngpu}: $(visible_gpus) GPUs are visible on this machine"
fi
[ "${num_nodes}" -eq 1 ] || [ "${cmd_backend:-local}" = slurm ] ||
    usage "--num_nodes ${num_nodes}: cmd_backend=${cmd_backend:-local} (cmd.sh) trains on one machine; slurm on several"
for word in ${probe_minutes:-none}; do
    [ "${word}" = all ] || [[ "${word}" =~ ${positive} ]] ||
        usage "--probe_minutes '${probe_minutes}': expected numbers of minutes above 0, or all"
done
[ -n "${seeds// /}" ] || usage "--seeds '': expected at least one number"
for seed in ${seeds}; do
    [[ "${seed}" =~ ^[0-9]{1,9}$ ]] || usage "--seeds '${seeds}': expected integers"
done
if [ -n "${score_dir}" ]; then
    score_set="$(basename -- "${score_dir}")"
    [ -d "${score_dir}" ] || usage "--score_dir '${score_dir}': no such directory (relative paths start at ${PWD})"
    [[ "${score_set}" =~ ^[A-Za-z0-9][A-Za-z0-9_.-]*$ ]] ||
        usage "--score_dir '${score_dir}': its name is that of the set; expected letters, digits, '_', '.' and '-'"
    [[ " ${train_set} ${valid_set} ${test_sets} " != *" ${score_set} "* ]] ||
        usage "--score_dir '${score_dir}': this recipe has a set of that name; give it another, with a link"
fi
[[ "${tag}" =~ ^[A-Za-z0-9_.-]*$ ]] || usage "--tag '${tag}': expected letters, digits, '_', '.' and '-'"

# The experiments' directory is written last, maybe after days: check now that it is writable.
writable() {
    local path="$1"
    while [ ! -e "${path}" ]; do path="$(dirname -- "${path}")"; done
    [ -d "${path}" ] && [ -w "${path}" ] && [ -x "${path}" ]
}
[ "${stop_stage}" -lt 3 ] || writable "${expdir}" ||
    die "--expdir ${expdir}: not writable (read-only file system or permissions); choose another directory"

# Names of the YAML files in a directory.
yaml_names() {
    local path
    for path in "$1"/*.yaml; do
        [ ! -f "${path}" ] || basename -- "${path}" .yaml
    done
}
mapfile -t known_models < <(yaml_names conf)
mapfile -t known_tables < <(yaml_names conf/tables)
check_words tables "${known_tables[@]}"
[ "${models}" = all ] || check_words models "${known_models[@]}"
for _option in skip_analysis skip_compression; do
    [[ " ${given_options[*]} " != *" ${_option} "* ]] || check_words "${_option}" "${known_models[@]}"
done
check_words dumps mulaw logmel
check_words analyses levels phones gender height durations probes
# shellcheck disable=SC2086 # names of sets are words
check_words analysis_sets ${train_set} ${valid_set} ${test_sets}
check_words phone_classes 61 39
check_words codings mulaw mulaw8 linear mulaw-pcm

# The experiments in the rows of the chosen tables, one per line; those with a root belong to other recipes.
rows_of_tables="$(for table in ${tables}; do sed '/[ {]root: /d' "conf/tables/${table}.yaml"; done |
    { grep -o 'experiment: *[A-Za-z0-9_.-]*' || true; } | sed 's/.*: *//')"

# Whether a baseline is to be scored: all are, or those in the rows of the chosen tables.
in_tables() { [ -z "${tables}" ] || grep -q -F -x -e "$1" <<<"${rows_of_tables}"; }

# The systems to train, score and sample: those named, those in the tables, or their intersection.
select_models() {
    local candidates="${models}"
    if [ "${models}" = all ] || [[ -n "${tables}" && " ${given_options[*]} " != *" models "* ]]; then
        candidates="${known_models[*]}"
    fi
    if [ -z "${tables}" ]; then
        tr -s ' ' '\n' <<<"${candidates}"
        return
    fi
    tr -s ' ' '\n' <<<"${candidates}" | grep -F -x -e "${rows_of_tables}" || true
}
mapfile -t selected < <(select_models)
for model in ${tag:+"${selected[@]}"}; do
    [[ " ${known_models[*]} " != *" ${model}_${tag} "* ]] ||
        usage "--tag '${tag}': ${model}_${tag} is the name of another system; choose another tag"
done
if [ -z "${selected[0]:-}" ] && [ "${stage}" -le 5 ] && [ "${stop_stage}" -ge 3 ]; then
    [ -z "${tables}" ] || [ -n "${rows_of_tables}" ] ||
        usage "--tables '${tables}': computed, so no system in conf/*.yaml is selected; print it with --stage 10"
    usage "--models '${models}' --tables '${tables}': no system in conf/*.yaml is selected"
fi
