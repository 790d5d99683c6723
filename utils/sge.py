#!/usr/bin/env python3
"""Runs jobs on a Grid Engine cluster, in Kaldi's calling convention.

    sge.py [options] [JOB=1:N] [options] logs/x.JOB.log command argument ... JOB ...

Submits the jobs as one array with qsub, and waits for them. conf/sge.conf in this directory, or a recipe's own
conf/sge.conf, maps options to those of qsub; queues, projects, names of resources and the like are set there.
The directory of the logs must be on a shared file system; its subdirectory q/ has the state of running jobs.

Ctrl-C and TERM cancel submitted jobs. A job that Grid Engine restarts (qmod -rj, a failed node) appends to its
log. With --requeue true and --time a job is warned before its time limit (s_rt, two minutes before h_rt), gets TERM,
and if it then exits with 75 it is requeued. Grid Engine counts the time of all attempts of a job towards h_rt: when
that is used up, the job gets TERM, and this program exits with 75; run the same command again.
A job has one node: --num-nodes is refused.
"""

from functools import partial

from jobrunner import cluster
from jobrunner.call import run_program
from jobrunner.sge import GridEngine

if __name__ == "__main__":
    run_program(partial(cluster.main, GridEngine(), usage=__doc__))
