# shellcheck shell=bash
# Sourced by the stages as path.sh of the recipe, a link to this file: the environment of all programs. Creates it if
# needed (tools/setup.sh), so that a fresh clone needs no other step.

_root="$(CDPATH='' cd -P -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd)"
bash "${_root}/tools/setup.sh"
export PATH="${_root}/tools/venv/bin:${_root}/utils:${PATH}"
unset _root PYTHONPATH PYTHONHOME MPLBACKEND # a notebook sets it to a module of its own environment

# Ids are sorted by bytes everywhere, but text is UTF-8.
export LC_ALL=C PYTHONUTF8=1 PYTHONUNBUFFERED=1 PYTHONNOUSERSITE=1

# torch needs a user name, which a user in a container may not have.
id -un >/dev/null 2>&1 || export LOGNAME="${LOGNAME:-$(id -u)}"

# glibc gives large blocks back to the kernel at every free, and page faults then take more than half of a training
# step on a CPU. (1 GiB: older versions read these as a 32-bit int.)
export MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_TOP_PAD_=67108864

# OpenMP threads that wait for each other spin for milliseconds by default, which doubles to quadruples a step that
# shares its CPUs with one other process; if they sleep at once (OMP_WAIT_POLICY=passive), a step on quiet CPUs takes
# half as long again. A thousand spins cost neither.
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-1000}"

# The job runner sets OMP_NUM_THREADS and CUDA_VISIBLE_DEVICES of each job; see cmd.sh.
