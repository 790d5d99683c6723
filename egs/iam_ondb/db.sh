# shellcheck shell=bash disable=SC2034
# Sourced: where corpora lie on this machine. A relative path starts at the recipe.

IAM_ONDB="${IAM_ONDB:-downloads/iam_ondb}" # lineStrokes, ascii and original, with the lists of the task, at any depth
