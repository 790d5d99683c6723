#!/usr/bin/env python3
"""Runs jobs on this machine, in Kaldi's calling convention.

    local.py [options] [JOB=1:N] [options] logs/x.JOB.log command argument ... JOB ...

As many jobs run at once as there are CPUs for their threads, or GPUs if they request them; --mem, --time,
--requeue and --config are for clusters; they are accepted but not enforced. Other runners have the same convention:
slurm.py, sge.py, pbs.py; utils/cmd.sh selects one.
"""

from functools import partial

from jobrunner import local
from jobrunner.report import run_program

if __name__ == "__main__":
    run_program(partial(local.main, usage=__doc__))
