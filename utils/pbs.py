#!/usr/bin/env python3
"""Runs jobs on an OpenPBS or PBS Professional cluster, in Kaldi's calling convention.

    pbs.py [options] [JOB=1:N] [options] logs/x.JOB.log command argument ... JOB ...

Submits the jobs as one array with qsub, and waits for them. conf/pbs.conf in this directory, or a recipe's own
conf/pbs.conf, maps options to those of qsub; queues, projects, names of resources and the like are set there.
The directory of the logs must be on a shared file system; its subdirectory q/ has the state of running jobs.

Ctrl-C and TERM cancel submitted jobs. A job that PBS restarts (preemption, qrerun, a failed node) appends to
its log. With --requeue true and --time a job gets TERM two minutes before its time limit, and if it then exits with 75
it is resubmitted by this program, as often as needed. A job has one node: --num-nodes is refused.
"""

from functools import partial

from jobrunner import cluster
from jobrunner.call import run_program
from jobrunner.pbs import Pbs

if __name__ == "__main__":
    run_program(partial(cluster.main, Pbs(), usage=__doc__))
