"""What runners are given to run in tests, and what became of it."""

import os
import subprocess
import sys
from pathlib import Path

from cluster import UTILS, body

# Says what it is told, and leaves one step after the first signal; so does a training.
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

# Does not listen to anybody.
STUBBORN = ["sh", "-c", "trap '' TERM USR1 USR2; echo from step 0; sleep 60; sleep 60"]

HOSTILE = [
    "a  b", "$(touch canary)", "`touch canary`", "it's", '"q"', "*", "new\nline", "\\", "", "\t", "é", "-x", "%j",
    "$JOB_ID", "\n#$ -h\n#PBS -h\n", "^array_index^", os.fsdecode(b"\xff\xfe ;touch canary"),
]  # fmt: skip


def training(*, steps: int, state: str = "state") -> list[object]:
    """A command that takes so many steps of 0.1 s, and keeps in a file how many it has taken."""
    return [sys.executable, "-c", TRAINING, state, steps]


def running(log: Path) -> bool:
    """Whether such a command has begun to write a log."""
    return log.exists() and any(line.startswith("from step") for line in body(log))


def conf(directory: Path, runner: str, text: str, name: str = "site") -> list[str]:
    """Arguments that name a configuration: the default one with more lines."""
    default = (UTILS / "conf" / f"{runner}.conf").read_text(encoding="utf-8")
    (directory / f"{name}.conf").write_text(default + text, encoding="utf-8")
    return ["--config", f"{name}.conf"]


def start(runner: str, directory: Path, *words: object, **environment: str) -> subprocess.Popen:
    """The runner of a cluster with these words, working in a directory, with shorter waits than usual."""
    return subprocess.Popen(
        [sys.executable, Path(__file__).with_name("impatient.py"), runner, *map(str, words)],
        cwd=directory,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen) -> tuple[int, str]:
    """Exit status and standard error."""
    _, err = process.communicate(timeout=120)
    return process.returncode, err
