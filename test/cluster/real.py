"""Slurm and Grid Engine of this host, by slurm.sh and sge.sh: started, and stopped in the end with all their jobs."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster import free_ports, missing, wait_for


class Real:
    """A scheduler of this host.

    Attributes:
        needs: programs.
        script: starts and stops it.
        ports: how many it needs.
        environment: of programs that are to find it.
        directory: its own.
    """

    needs: tuple[str, ...]
    script: str
    ports: int
    environment: dict[str, str]

    def __init__(self, directory: Path, ports: list[str]) -> None:
        self.directory = directory

    @classmethod
    def missing(cls) -> str:
        """Why it cannot be started here, if so."""
        return missing(*cls.needs)

    @classmethod
    @contextmanager
    def running(cls) -> Iterator["Real"]:
        """Start it, and stop it in the end."""
        directory = Path(tempfile.mkdtemp(prefix="cluster.", dir="/tmp"))  # a short plain path: it holds sockets
        ports = free_ports(cls.ports)
        script = ["bash", Path(__file__).with_name(cls.script)]
        try:
            start = [*script, "start", directory, *ports]
            done = subprocess.run(start, capture_output=True, text=True, timeout=1200, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            yield cls(directory, ports)
        finally:
            subprocess.run([*script, "stop", directory], capture_output=True, timeout=1200, check=False)
            shutil.rmtree(directory, ignore_errors=True)

    def ask(self, *words: object) -> str:
        """Standard output of one of its programs."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run(
            map(str, words), env=environment, capture_output=True, text=True, timeout=1200, check=True
        )
        return done.stdout.strip()


class Slurm(Real):
    """Two nodes, n1 and n2, both this host.

    Attributes:
        apart: a directory that the second node does not see.
    """

    needs = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
    script, ports = "slurm.sh", 3

    def __init__(self, directory: Path, ports: list[str]) -> None:
        super().__init__(directory, ports)
        self.apart = directory / "apart"
        self.environment = {"SLURM_CONF": str(directory / "slurm.conf")}

    def jobs(self, directory: Path, states: str = "pending,running") -> list[str]:
        lines = self.ask("squeue", "--noheader", "--array", f"--states={states}", "--format=%i|%Z").splitlines()
        return [line.split("|")[0] for line in lines if line.split("|")[1].startswith(f"{directory}/")]

    def cancel(self, ids: list[str]) -> None:
        self.ask("scancel", *ids)

    def restart(self, job: str) -> None:
        self.ask("scontrol", "requeue", job)
        self.start_soon(job)

    def warn(self, ids: list[str]) -> None:
        self.ask("scancel", "--batch", "--signal=USR1", *ids)
        for job in ids:
            self.start_soon(job)

    def start_soon(self, job: str) -> None:
        """Without all of the two minutes that Slurm leaves between attempts; some is needed, or it confuses them."""
        wait_for(lambda: self.ask("squeue", "--noheader", "--states=pending", f"--jobs={job}", "--format=%i"))
        self.ask("scontrol", "update", f"JobId={job}", "StartTime=now+2")


class GridEngine(Real):
    """Four slots; a queue that gives notice two seconds before it kills; two GPUs that are only counted."""

    needs = ("sge_qmaster", "sge_execd", "qsub", "qstat", "qacct")
    script, ports = "sge.sh", 2
    programs = "/usr/lib/gridengine"  # Debian's; those on the PATH are wrappers for the machine's own cell

    def __init__(self, directory: Path, ports: list[str]) -> None:
        super().__init__(directory, ports)
        self.environment = {
            "SGE_ROOT": str(directory),
            "SGE_CELL": "cell",
            "SGE_QMASTER_PORT": ports[0],
            "SGE_EXECD_PORT": ports[1],
            "PATH": self.programs + os.pathsep + os.environ["PATH"],
        }

    @classmethod
    def missing(cls) -> str:
        return super().missing() or ("" if os.geteuid() == 0 else "Grid Engine's daemons must be started by root")

    def jobs(self, _: Path) -> list[str]:
        rows = [line.split() for line in self.ask("qstat", "-g", "d").splitlines()[2:]]
        return [f"{row[0]}.{row[-1]}" for row in rows]

    def cancel(self, ids: list[str]) -> None:
        self.ask("qdel", *{job.split(".")[0] for job in ids})

    def restart(self, job: str) -> None:
        self.ask("qmod", "-rj", job)

    def warn(self, ids: list[str]) -> None:
        """Jobs warn themselves."""
