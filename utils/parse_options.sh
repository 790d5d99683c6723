# shellcheck shell=bash
# Sourced by a script after it has set its variables: every variable assigned at the start of a line above is an option.
#
#   nj=4           # number of parallel jobs
#   tag=""         # name of this variant
#   . utils/parse_options.sh
#
# makes `--nj 8`, `--nj=8` and `--help` work; dashes and underscores are equivalent, and --help prints options with their
# defaults and comments. An option whose default is true or false takes no other values. Files in the array option_files
# are read for further options. The names of the given options are in the array given_options; arguments after the
# options, or after `--`, stay in "$@". Wrong usage is one line and exit status 2.

# Fills _names, in the order of first assignment, and _help, the comments of all options.
_read_options() {
    local file line name
    local assignment='^([a-z][a-z0-9_]*)=("[^"]*"|[^#"]*)([[:space:]]*#[[:space:]]*(.*))?$'
    _names=()
    declare -gA _help=()
    for file in "$@"; do
        [ -f "${file}" ] || continue
        while IFS= read -r line; do
            [[ "${line}" != *parse_options.sh* || "${line}" == \#* ]] || break
            [[ "${line}" =~ ${assignment} ]] || continue
            name="${BASH_REMATCH[1]}"
            [ -n "${!name+set}" ] || continue # assigned on a branch that was not taken
            [ -n "${_help[${name}]+set}" ] || _names+=("${name}")
            [ -n "${_help[${name}]:-}" ] || _help[${name}]="${BASH_REMATCH[4]}"
        done <"${file}"
    done
}

_print_help() {
    local name script="$1"
    printf 'Usage: %s [options]\n' "${script}"
    [ -z "${help_message:-}" ] || printf '\n%s\n' "${help_message}"
    printf '\nOptions (defaults in parentheses; dashes and underscores are equivalent):\n'
    for name in "${_names[@]}"; do
        printf '  --%-16s %s (%s)\n' "${name}" "${_help[${name}]}" "${!name}"
    done
}

# Edit distance of two words.
_distance() {
    local a="$1" b="$2" i j previous diagonal cost
    local -a row=()
    for ((j = 0; j <= ${#b}; j++)); do row[j]=${j}; done
    for ((i = 1; i <= ${#a}; i++)); do
        diagonal=${row[0]}
        row[0]=${i}
        for ((j = 1; j <= ${#b}; j++)); do
            previous=${row[j]}
            cost=$((diagonal + 1))
            [ "${a:i-1:1}" != "${b:j-1:1}" ] || cost=${diagonal}
            [ "$((row[j] + 1))" -ge "${cost}" ] || cost=$((row[j] + 1))
            [ "$((row[j - 1] + 1))" -ge "${cost}" ] || cost=$((row[j - 1] + 1))
            row[j]=${cost}
            diagonal=${previous}
        done
    done
    printf '%s' "${row[${#b}]}"
}

# The option most similar to a misspelt one, if any.
_nearest_option() {
    local name distance best=3 nearest=
    for name in "${_names[@]}"; do
        distance="$(_distance "$1" "${name}")"
        if [ "${distance}" -lt "${best}" ]; then
            best=${distance}
            nearest=${name}
        fi
    done
    [ -z "${nearest}" ] || printf '; did you mean --%s?' "${nearest}"
}

_usage_error() {
    printf '%s: %s (--help lists the options)\n' "${0##*/}" "$1" >&2
    exit 2
}

given_options=()
_script="${BASH_SOURCE[1]:-}"
# A script called by a relative path may have changed to its own directory.
[ -f "${_script}" ] || _script="./${_script##*/}"
# shellcheck disable=SC2154 # option_files is the sourcing script's, or unset
_read_options "${option_files[@]}" "${_script}"
while [ $# -gt 0 ]; do
    case "$1" in
        --help | -h)
            _print_help "${0##*/}"
            exit 0
            ;;
        --) shift && break ;;
        --*) ;;
        -*) _usage_error "unknown option '$1'; options start with two dashes" ;;
        *) break ;;
    esac
    _name="${1#--}"
    _name="${_name%%=*}"
    _name="${_name//-/_}"
    [ -n "${_name}" ] && [ -n "${_help[${_name}]+set}" ] ||
        _usage_error "unknown option '${1%%=*}'$(_nearest_option "${_name}")"
    if [[ "$1" == *=* ]]; then
        _value="${1#*=}"
        shift
    else
        # The name of an option is not a value; a value that looks like one can be given as --name=value.
        [ $# -ge 2 ] && [[ ! "$2" =~ ^--[A-Za-z][A-Za-z0-9_-]*$ ]] || _usage_error "option '$1' requires a value"
        _value="$2"
        shift 2
    fi
    case "${!_name}" in
        true | false)
            [ "${_value}" = true ] || [ "${_value}" = false ] ||
                _usage_error "option '--${_name}' must be true or false, not '${_value}'"
            ;;
    esac
    printf -v "${_name}" '%s' "${_value}"
    given_options+=("${_name}")
done
unset _name _value _script
