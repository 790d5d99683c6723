"""What all job runners share: `utils/local.py`, `utils/slurm.py`, `utils/sge.py`, `utils/pbs.py`.

    call      the command line, the same for all
    report    what a runner says: progress, failing jobs with the ends of their logs, exit statuses
    attempt   a job's command once: head and end of its log, its environment, its process group
    local     jobs on this machine
    config    options of a scheduler, from a file in Kaldi's grammar
    cluster   submits, waits and cancels; what a scheduler must be able to do (Backend)
    job       what runs on a compute node
    slurm, sge, pbs   the schedulers

Only the standard library is used, so that any Python >= 3.11 runs it before an environment is there. It is Python and
not shell because arguments must stay data (no shell sees them again), each job needs a process group of its own that
signals reach, and results are collected from many jobs at once.
"""
