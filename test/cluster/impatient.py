"""Runs a runner with short waits: impatient.py RUNNER ARGUMENT..., for tests."""

import os
import runpy
import sys
from pathlib import Path

UTILS = Path(__file__).resolve().parents[2] / "utils"

if __name__ == "__main__":
    sys.path.insert(0, str(UTILS))
    from jobrunner import cluster

    cluster.SUBMIT_PAUSES_SECONDS = (0.1, 0.1, 0.1, 0.1)
    cluster.STATUS_DELAY_SECONDS, cluster.UNSEEN_DELAY_SECONDS, cluster.STOPPED_DELAY_SECONDS = 10.0, 8.0, 0.3
    cluster.CANCEL_SECONDS, cluster.CANCEL_AGAIN_SECONDS = float(os.environ.get("CANCEL_SECONDS", "60")), 1.0
    cluster.REMARK_SECONDS = float(os.environ.get("REMARK_SECONDS", "30"))
    sys.argv = [str(UTILS / f"{sys.argv[1]}.py"), *sys.argv[2:]]
    runpy.run_path(sys.argv[0], run_name="__main__")
