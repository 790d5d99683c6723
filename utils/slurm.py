#!/usr/bin/env python3
"""Runs jobs on a Slurm cluster, in Kaldi's calling convention.

    slurm.py [options] [JOB=1:N] [options] logs/x.JOB.log command argument ... JOB ...

The jobs are submitted as one array with sbatch, and waited for. Options become sbatch's as conf/slurm.conf beside this
program says, or a recipe's own conf/slurm.conf: partition, account, constraint and the like have their place there.
The directory of the logs must be on a file system that the nodes share; a directory q/ in it holds what is running.

Ctrl-C and TERM cancel what was submitted. A job that Slurm starts again (requeue, preemption, a failed node) appends to
its log. With --requeue true a job is warned before its time limit (USR1), gets TERM, and if it then exits with 75 it is
queued again, as often as it takes. With --num-nodes N its command runs once on each node, under srun.
"""

from functools import partial

from jobrunner import cluster
from jobrunner.call import run_program
from jobrunner.slurm import Slurm

if __name__ == "__main__":
    run_program(partial(cluster.main, Slurm(), usage=__doc__))
