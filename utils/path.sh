# shellcheck shell=bash
# Sourced by the stages as path.sh of the recipe, a link to this file: the environment that programs run in. Makes it
# first where it is not there yet (tools/setup.sh), so that a fresh clone needs no other step.

_root="$(CDPATH='' cd -P -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd)"
bash "${_root}/tools/setup.sh"
export PATH="${_root}/tools/venv/bin:${_root}/utils:${PATH}"
unset _root PYTHONPATH PYTHONHOME MPLBACKEND # a notebook's names a module of its own environment

# Ids are sorted by their bytes everywhere, and text is UTF-8 all the same.
export LC_ALL=C PYTHONUTF8=1 PYTHONUNBUFFERED=1 PYTHONNOUSERSITE=1

# torch asks for its user's name, and in a container a user may have none.
id -un >/dev/null 2>&1 || export LOGNAME="${LOGNAME:-$(id -u)}"

# glibc gives large blocks back to the kernel at every free, and page faults then take more than half of a training
# step on a CPU. (1 GiB: older versions read these as a 32-bit int.)
export MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_TOP_PAD_=67108864

# OpenMP's threads otherwise spin while they wait for each other, and a step that shares its processors with one other
# process takes ten times as long instead of twice.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"

# Each job's OMP_NUM_THREADS and CUDA_VISIBLE_DEVICES are the job runner's to set; see cmd.sh.
