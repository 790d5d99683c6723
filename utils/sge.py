#!/usr/bin/env python3
"""Runs jobs on a Grid Engine cluster, in Kaldi's calling convention.

    sge.py [options] [JOB=1:N] [options] logs/x.JOB.log command argument ... JOB ...

The jobs are submitted as one array with qsub, and waited for. Options become qsub's as conf/sge.conf beside this
program says, or a recipe's own conf/sge.conf: queues, projects, names of resources and the like have their place there.
The directory of the logs must be on a file system that the nodes share; a directory q/ in it holds what is running.

Ctrl-C and TERM cancel what was submitted. A job that Grid Engine starts again (qmod -rj, a failed node) appends to its
log. With --requeue true and --time a job is warned before its time limit (s_rt, two minutes before h_rt), gets TERM,
and if it then exits with 75 it is queued again. Grid Engine counts the time of all attempts of a job towards h_rt: when
that is used up, the job is told so, gets TERM, and this program exits with 75; run the same command again.
A job has one node: --num-nodes is refused.
"""

from functools import partial

from jobrunner import cluster
from jobrunner.call import run_program
from jobrunner.sge import GridEngine

if __name__ == "__main__":
    run_program(partial(cluster.main, GridEngine(), usage=__doc__))
