# shellcheck shell=bash disable=SC2034
# Sourced: paths of corpora. Relative paths start at the recipe.

MOCAP="${MOCAP:-downloads/all_asfamc/subjects}" # subjects/01 and so on of the CMU database, or any ASF/AMC or BVH files
