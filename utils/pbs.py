#!/usr/bin/env python3
"""Runs jobs on an OpenPBS or PBS Professional cluster, in Kaldi's calling convention.

    pbs.py [options] [JOB=1:N] [options] logs/x.JOB.log command argument ... JOB ...

The jobs are submitted as one array with qsub, and waited for. Options become qsub's as conf/pbs.conf beside this
program says, or a recipe's own conf/pbs.conf: queues, projects, names of resources and the like have their place there.
The directory of the logs must be on a file system that the nodes share; a directory q/ in it holds what is running.

Ctrl-C and TERM cancel what was submitted. A job that PBS starts again (preemption, qrerun, a failed node) appends to
its log. With --requeue true and --time a job gets TERM two minutes before its time limit, and if it then exits with 75
it is submitted once more by this program, as often as it takes. A job has one node: --num-nodes is refused.
"""

from functools import partial

from jobrunner import cluster
from jobrunner.call import run_program
from jobrunner.pbs import Pbs

if __name__ == "__main__":
    run_program(partial(cluster.main, Pbs(), usage=__doc__))
