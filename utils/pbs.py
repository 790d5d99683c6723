#!/usr/bin/env python3
"""Runs jobs on an OpenPBS or PBS Professional cluster, in Kaldi's calling convention.

    pbs.py [options] [JOB=1:N] [options] logs/x.JOB.log command argument ... JOB ...

A job has one node: --num-nodes is refused.
"""

from functools import partial

from jobrunner import cluster
from jobrunner.pbs import Pbs
from jobrunner.report import run_program

if __name__ == "__main__":
    run_program(partial(cluster.main, Pbs(), usage=__doc__))
