"""A Grid Engine of this host: test/cluster/sge.sh."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster import free_ports

PROGRAMS = "/usr/lib/gridengine"  # Debian's; those on the PATH are wrappers for the machine's own cell


class GridEngine:
    """Started, and stopped in the end with all its jobs.

    Attributes:
        environment: of programs that are to find it.
    """

    needs = ("sge_qmaster", "sge_execd", "qsub", "qstat", "qacct")

    def __init__(self, directory: Path, ports: list[str]) -> None:
        self.environment = {
            "SGE_ROOT": str(directory),
            "SGE_CELL": "cell",
            "SGE_QMASTER_PORT": ports[0],
            "SGE_EXECD_PORT": ports[1],
            "PATH": PROGRAMS + os.pathsep + os.environ["PATH"],
        }

    @classmethod
    @contextmanager
    def running(cls) -> Iterator["GridEngine"]:
        """Start it, and in the end stop it and all its jobs."""
        directory = Path(tempfile.mkdtemp(prefix="sge.", dir="/tmp"))  # a plain path, as it goes into configurations
        ports = [str(port) for port in free_ports(2)]
        script = ["bash", Path(__file__).with_name("sge.sh")]
        try:
            done = subprocess.run(
                [*script, "start", directory, *ports], capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
            yield cls(directory, ports)
        finally:
            subprocess.run([*script, "stop", directory], capture_output=True, timeout=60, check=False)
            shutil.rmtree(directory, ignore_errors=True)

    def ask(self, *words: object) -> str:
        """Standard output of one of its programs."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run(map(str, words), env=environment, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.strip()

    def jobs(self) -> dict[str, str]:
        """States of all jobs that have not ended, by `<id>.<task>`."""
        rows = [line.split() for line in self.ask("qstat", "-g", "d").splitlines()[2:]]
        return {f"{row[0]}.{row[-1]}": row[4] for row in rows}
