#!/usr/bin/env python3
"""Runs jobs on a Slurm cluster, in Kaldi's calling convention.

    slurm.py [options] [JOB=1:N] [options] logs/x.JOB.log command argument ... JOB ...

Submits the jobs as one array with sbatch, and waits for them. conf/slurm.conf in this directory, or a recipe's own
conf/slurm.conf, maps options to those of sbatch; partition, account, constraint and the like are set there.
The directory of the logs must be on a shared file system; its subdirectory q/ has the state of running jobs.

Ctrl-C and TERM cancel submitted jobs. A job that Slurm restarts (requeue, preemption, a failed node) appends to
its log. With --requeue true a job is warned before its time limit (USR1), gets TERM, and if it then exits with 75 it is
requeued, as often as needed. With --num-nodes N its command runs once on each node, under srun.
"""

from functools import partial

from jobrunner import cluster
from jobrunner.call import run_program
from jobrunner.slurm import Slurm

if __name__ == "__main__":
    run_program(partial(cluster.main, Slurm(), usage=__doc__))
