#!/usr/bin/env python3
"""Runs one job on a compute node; slurm.py, sge.py and pbs.py submit it. See jobrunner/job.py."""

import sys

from jobrunner import job

if __name__ == "__main__":
    sys.exit(job.main(sys.argv[1:]))
