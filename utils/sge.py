#!/usr/bin/env python3
"""Runs jobs on a Grid Engine cluster, in Kaldi's calling convention.

    sge.py [options] [JOB=1:N] [options] logs/x.JOB.log command argument ... JOB ...

A job has one node: --num-nodes is refused.
"""

from functools import partial

from jobrunner import cluster
from jobrunner.report import run_program
from jobrunner.sge import GridEngine

if __name__ == "__main__":
    run_program(partial(cluster.main, GridEngine(), usage=__doc__))
