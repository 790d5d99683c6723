#!/usr/bin/env python3
"""Runs one job on a compute node; submitted by slurm.py, sge.py and pbs.py. See jobrunner/job.py."""

import sys

from jobrunner import job

if __name__ == "__main__":
    sys.exit(job.main(sys.argv[1:]))
