"""Shared code of the job runners `utils/local.py`, `utils/slurm.py`, `utils/sge.py` and `utils/pbs.py`.

    call      the command line, the same for all
    report    output of runners: progress, failed jobs with the last lines of their logs, exit statuses
    attempt   one attempt of a job: header and footer of its log, its environment, its process group
    local     jobs on this machine
    config    options of a scheduler, from a file in Kaldi's syntax
    cluster   submits, waits and cancels
    job       runs one job on a compute node
    slurm, sge, pbs   the schedulers (interface: backend)

Only the standard library is used, so that any Python >= 3.11 runs it without an environment. It is Python instead of
shell because arguments must remain data (no shell expands them again), each job needs its own process group for
signals, and results are collected from many jobs at once.
"""
