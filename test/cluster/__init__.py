"""Job runners under test: calling them, and schedulers of one host that tests start and stop."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

UTILS = Path(__file__).resolve().parents[2] / "utils"
DAEMONS = os.environ["PATH"] + os.pathsep + "/usr/sbin"


def start(runner: str, directory: Path, *words: object, **environment: str) -> subprocess.Popen:
    """The runner (local, slurm, sge, pbs) with these words, working in a directory."""
    return subprocess.Popen(
        [sys.executable, UTILS / f"{runner}.py", *map(str, words)],
        cwd=directory,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def call(runner: str, directory: Path, *words: object, **environment: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a runner."""
    process = start(runner, directory, *words, **environment)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def body(log: Path) -> list[str]:
    """What a job wrote into its log."""
    return [line for line in log.read_text(encoding="utf-8").splitlines() if not line.startswith("# ")]


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens at."""
    listeners = [socket.socket() for _ in range(count)]
    for listener in listeners:
        listener.bind(("", 0))
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def missing(*programs: str) -> str:
    """Why a scheduler's tests cannot run here, if they cannot."""
    absent = [program for program in programs if not shutil.which(program, path=DAEMONS)]
    return f"not installed: {' '.join(absent)}; run test/cluster/install.sh as root" if absent else ""


class Slurm:
    """A Slurm of this host: test/cluster/slurm.sh.

    Attributes:
        environment: of programs that are to find it.
        directory: its own.
        apart: a directory that its second node does not see.
    """

    needs = ("munged", "slurmctld", "slurmd", "sbatch", "srun")

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.apart = directory / "apart"
        self.environment = {"SLURM_CONF": str(directory / "slurm.conf")}

    @classmethod
    @contextmanager
    def running(cls) -> Iterator["Slurm"]:
        """Start it, and in the end stop it and all its jobs."""
        directory = Path(tempfile.mkdtemp(prefix="slurm.", dir="/tmp"))  # a short path, as it holds sockets
        script = ["bash", Path(__file__).with_name("slurm.sh")]
        try:
            subprocess.run([*script, "start", directory, *map(str, free_ports(3))], check=True, timeout=60)
            yield cls(directory)
        finally:
            subprocess.run([*script, "stop", directory], check=False, timeout=60)
            shutil.rmtree(directory, ignore_errors=True)

    def ask(self, *words: object) -> str:
        """Standard output of one of Slurm's programs."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run(map(str, words), env=environment, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.strip()

    def jobs(self, directory: Path, states: str = "pending,running") -> list[str]:
        """Ids of jobs in these states that a runner submitted from a directory or one below it."""
        lines = self.ask("squeue", "--noheader", "--array", f"--states={states}", "--format=%i|%Z").splitlines()
        return [line.split("|")[0] for line in lines if line.split("|")[1].startswith(f"{directory}/")]
