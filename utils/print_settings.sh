# shellcheck shell=bash disable=SC2154
# Sourced by bash before a run.sh, by way of BASH_ENV: prints what it has set in place of starting the stages, each as
# NAME=VALUE and a NUL; of arrays, each element.

_print_settings() {
    local name
    for name in train_set valid_set test_sets material; do printf '%s=%s\0' "${name}" "${!name-}"; done
    for name in "${download_args[@]}"; do printf 'download_args=%s\0' "${name}"; done
    for name in "${data_args[@]}"; do printf 'data_args=%s\0' "${name}"; done
}
trap 'case "${BASH_COMMAND}" in ". "*/utils/stages.sh) _print_settings; exit 0 ;; esac' DEBUG
