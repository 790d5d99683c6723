#!/usr/bin/env python3
"""Runs jobs on a Slurm cluster, in Kaldi's calling convention.

    slurm.py [options] [JOB=1:N] [options] logs/x.JOB.log command argument ... JOB ...

Slurm warns jobs (USR1) and requeues them itself. With --num-nodes N a command runs once on each node, under srun.
"""

from functools import partial

from jobrunner import cluster
from jobrunner.report import run_program
from jobrunner.slurm import Slurm

if __name__ == "__main__":
    run_program(partial(cluster.main, Slurm(), usage=__doc__))
