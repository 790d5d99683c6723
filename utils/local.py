#!/usr/bin/env python3
"""Runs jobs on this machine, in Kaldi's calling convention.

    local.py [options] [JOB=1:N] [options] logs/x.JOB.log command argument ... JOB ...

As many jobs run at once as there are CPUs for their threads, or GPUs if they request them. --mem, --time, --requeue
and --config are for clusters: they are accepted but have no effect. The other runners, slurm.py, sge.py and pbs.py,
have the same command line; utils/cmd.sh selects one.
"""

from functools import partial

from jobrunner import local
from jobrunner.report import run_program

if __name__ == "__main__":
    run_program(partial(local.main, usage=__doc__))
