# shellcheck shell=bash
# Sourced: paths of corpora. This recipe makes its own (stage 0), so there is nothing to set.
