# shellcheck shell=bash
# Sourced: where corpora lie on this machine. This recipe makes its own (stage 0), so there is nothing to set.
