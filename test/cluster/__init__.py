"""Job runners under test: calling them, what they are given to run, and schedulers that tests start and stop.

Schedulers (`Slurm` and `GridEngine` are real, `Imitation` is not) have in common:

    environment               of programs that are to find it
    jobs(directory)           ids of the jobs that wait or run, of runners that work there
    cancel(ids)               as somebody else would
    restart(id)               as after a failed node
    warn(ids)                 as before the time limit, where the scheduler does that
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

UTILS = Path(__file__).resolve().parents[2] / "utils"
DAEMONS = os.environ["PATH"] + os.pathsep + "/usr/sbin"

# Says what it is told, and stops one step after the first signal; so does a training.
TRAINING = """
import os, signal, sys, time
told = []
for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2"):
    signal.signal(getattr(signal, name), lambda number, frame: told.append(signal.Signals(number).name))
steps = int(open(sys.argv[1]).read()) if os.path.exists(sys.argv[1]) else 0
print("from step", steps, flush=True)
while not told and steps < int(sys.argv[2]):
    time.sleep(0.1)
    steps += 1
time.sleep(0.5)
print("to step", steps, *told, flush=True)
open(sys.argv[1], "w").write(str(steps))
sys.exit(75 if told else 0)
"""

# Ignores all signals that can be ignored.
STUBBORN = ["sh", "-c", "trap '' TERM USR1 USR2; echo from step 0; sleep 60; sleep 60"]

HOSTILE = [
    "a  b", "$(touch canary)", "`touch canary`", "it's", '"q"', "*", "new\nline", "\\", "", "\t", "é", "-x", "%j",
    "$JOB_ID", "\n#$ -h\n#PBS -h\n", "^array_index^", os.fsdecode(b"\xff\xfe ;touch canary"),
]  # fmt: skip


class Bench:
    """A runner (local, slurm, sge, pbs) in a directory, with its scheduler, if it has one."""

    def __init__(self, kind: str, directory: Path, scheduler: object = None) -> None:
        self.kind, self.directory, self.scheduler = kind, directory, scheduler

    def start(self, *words: object, **environment: str) -> subprocess.Popen:
        """The runner with these words, and shorter waits than usual."""
        return subprocess.Popen(
            [sys.executable, Path(__file__).with_name("impatient.py"), self.kind, *map(str, words)],
            cwd=self.directory,
            env={**os.environ, **(self.scheduler.environment if self.scheduler else {}), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *words: object, **environment: str) -> tuple[int, str]:
        """Exit status and standard error; there is no standard output."""
        return end(self.start(*words, **environment))

    def conf(self, text: str, name: str = "site") -> list[str]:
        """Arguments that name a configuration: the default one with more lines."""
        default = (UTILS / "conf" / f"{self.kind}.conf").read_text(encoding="utf-8")
        (self.directory / f"{name}.conf").write_text(default + text, encoding="utf-8")
        return ["--config", f"{name}.conf"]

    def jobs(self) -> list[str]:
        """Ids of jobs that wait or run."""
        return self.scheduler.jobs(self.directory)

    def check_nothing_is_left(self) -> None:
        """No job waits or runs, and the runner's own directory is gone."""
        assert not (self.directory / "q").exists()
        if self.scheduler:
            wait_for(lambda: self.jobs() == [], 20)  # real ones need a moment

    def wait_for_start(self, *logs: str) -> None:
        """Until commands of `training` have begun to write these logs."""
        paths = [self.directory / log for log in logs]
        wait_for(lambda: all(path.exists() and any(line.startswith("from") for line in body(path)) for path in paths))

    def body(self, log: str = "x.log") -> list[str]:
        """What a job wrote into its log."""
        return body(self.directory / log)


def end(process: subprocess.Popen) -> tuple[int, str]:
    """Exit status and standard error of a runner."""
    out, err = process.communicate(timeout=1200)
    assert out == ""
    return process.returncode, err


def training(*, steps: int, state: str = "state") -> list[object]:
    """A command that takes so many steps of 0.1 s, and keeps in a file how many it has taken."""
    return [sys.executable, "-c", TRAINING, state, steps]


def body(log: Path) -> list[str]:
    """What a job wrote into its log."""
    return [line for line in log.read_text(encoding="utf-8").splitlines() if not line.startswith("# ")]


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


def free_ports(count: int) -> list[str]:
    """Free ports of this machine."""
    listeners = [socket.socket() for _ in range(count)]
    for listener in listeners:
        listener.bind(("", 0))
    ports = [str(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def missing(*programs: str) -> str:
    """Why a scheduler's tests cannot run here, if they cannot."""
    absent = [program for program in programs if not shutil.which(program, path=DAEMONS)]
    return f"not installed: {' '.join(absent)}; run test/cluster/install.sh as root" if absent else ""
