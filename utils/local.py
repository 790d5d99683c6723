#!/usr/bin/env python3
"""Runs jobs on this machine, in Kaldi's calling convention.

    local.py [options] [JOB=1:N] [options] logs/x.JOB.log command argument ... JOB ...

As many jobs run at once as there are processors for their threads, or GPUs for those that want some; --mem, --time,
--requeue and --config are for clusters, accepted and not enforced here. Other backends are programs of the same
convention beside this one: slurm.py, sge.py, pbs.py; utils/cmd.sh chooses.
"""

from functools import partial

from jobrunner import local
from jobrunner.call import run_program

if __name__ == "__main__":
    run_program(partial(local.main, usage=__doc__))
