# shellcheck shell=bash disable=SC2034
# Sourced: paths of corpora. Relative paths start at the recipe.

IAM_ONDB="${IAM_ONDB:-downloads/iam_ondb}" # lineStrokes, ascii and original, with the lists of the task, at any depth
