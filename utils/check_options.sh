# shellcheck shell=bash disable=SC2154
# Sourced by stages.sh: checks the values of all shared options before anything is done, and finds out which systems they
# select (array selected). Wrong usage is one line and exit status 2.

usage() { die "$1 (--help lists the options)" 2; }

# Name, least and greatest value of an option that is a whole number.
check_number() {
    [[ "${!1}" =~ ^(0|[1-9][0-9]{0,8})$ ]] && [ "${!1}" -ge "$2" ] && [ "${!1}" -le "$3" ] ||
        usage "--$1 '${!1}': a whole number from $2 to $3 is expected"
}

check_words() {
    local option="$1" word
    shift
    for word in ${!option}; do
        [[ " $* " == *" ${word} "* ]] || usage "--${option}: unknown '${word}'; known are: $*"
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
[ "${cmd_backend}" = local ] || [ "${nthreads}" -gt 0 ] || nthreads=4 # of other people's nodes, too
check_number iwae_samples 1 1000000
check_number latent_samples 1 1000000
check_number ngpu 0 64
check_number num_nodes 1 1000
positive='^0*([1-9][0-9]*([.][0-9]+)?|[.]0*[1-9][0-9]*)([eE][-+]?[0-9]{1,2})?$'
# Lengths, of which a recipe has more: the stage that uses one may come after days of training.
for option in "${given_options[@]}"; do
    case "${option}" in
    *_seconds) [[ "${!option}" =~ ${positive} ]] ||
        usage "--${option} '${!option}': a number of seconds above 0 is expected" ;;
    *_frames) check_number "${option}" 1 999999999 ;;
    esac
done
[[ " ${given_options[*]} " != *" sample_seconds "* || " ${sample_args[*]:-} " != *" --frames "* ]] ||
    usage "--sample_seconds ${sample_seconds}: lengths of samples are in frames in this recipe"
if [ "${cmd_backend:-local}" = local ] && [ "${ngpu}" -gt 0 ] && [ "${ngpu}" -gt "$(visible_gpus)" ]; then
    usage "--ngpu ${ngpu}: $(visible_gpus) GPUs are visible on this machine"
fi
[ "${num_nodes}" -eq 1 ] || [ "${cmd_backend:-local}" = slurm ] ||
    usage "--num_nodes ${num_nodes}: with cmd_backend=${cmd_backend:-local} (cmd.sh) a training has one machine; slurm gives several"
for word in ${probe_minutes:-none}; do
    [ "${word}" = all ] || [[ "${word}" =~ ${positive} ]] ||
        usage "--probe_minutes '${probe_minutes}': numbers of minutes above 0, or all, are expected"
done
[ -n "${seeds// /}" ] || usage "--seeds '': at least one number is expected"
for seed in ${seeds}; do
    [[ "${seed}" =~ ^[0-9]{1,9}$ ]] || usage "--seeds '${seeds}': whole numbers are expected"
done
[[ "${tag}" =~ ^[A-Za-z0-9_.-]*$ ]] || usage "--tag '${tag}': letters, digits, '_', '.' and '-' are expected"

# Where experiments go is written last, maybe after days: whether it can be is known now.
writable() {
    local path="$1"
    while [ ! -e "${path}" ]; do path="$(dirname -- "${path}")"; done
    [ -d "${path}" ] && [ -w "${path}" ] && [ -x "${path}" ]
}
[ "${stop_stage}" -lt 3 ] || writable "${expdir}" ||
    die "--expdir ${expdir}: cannot be written (a read-only file system, or its permissions); choose another directory"

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
[[ " ${given_options[*]} " != *" skip_analysis "* ]] || check_words skip_analysis "${known_models[@]}"
check_words dumps mulaw logmel
check_words analyses levels phones gender height durations probes
# shellcheck disable=SC2086 # names of sets are words
check_words analysis_sets ${train_set} ${valid_set} ${test_sets}
check_words phone_classes 61 39
check_words codings mulaw mulaw8 linear mulaw-pcm

# The experiments in the rows of the chosen tables, one to a line; those with a root are not of this recipe.
rows_of_tables="$(for table in ${tables}; do sed '/[ {]root: /d' "conf/tables/${table}.yaml"; done |
    { grep -o 'experiment: *[A-Za-z0-9_.-]*' || true; } | sed 's/.*: *//')"

# Whether a score that needs no network is wanted: all are, or those in the rows of the chosen tables.
in_tables() { [ -z "${tables}" ] || grep -q -F -x -e "$1" <<<"${rows_of_tables}"; }

# The systems to train, score and sample: those named, those of the tables, or what both have in common.
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
        usage "--tag '${tag}': ${model}_${tag} is a system of its own, whose results these would be taken for; choose another"
done
if [ -z "${selected[0]:-}" ] && [ "${stage}" -le 5 ] && [ "${stop_stage}" -ge 3 ]; then
    [ -z "${tables}" ] || [ -n "${rows_of_tables}" ] ||
        usage "--tables '${tables}': only computed, so no system in conf/*.yaml is left; print it with --stage 10"
    usage "--models '${models}' --tables '${tables}': no system in conf/*.yaml is left"
fi
