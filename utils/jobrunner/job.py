"""Runs one job on a compute node, from the description written by cluster.py.

On any signal of the scheduler (a warning before the time limit, termination, preemption), the process group of the
command gets one SIGTERM and is waited for. The outcome of the job is written to `status.<job>` next to the description:
    status    exit status of the command; 75 if it ended because of such a signal
    stopped   whether there was such a signal: the scheduler may still restart the job
    again     whether the runner must submit the job again: it was warned, and jobs cannot requeue themselves
    error     an error of the runner itself, or empty
"""

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

from jobrunner.attempt import Attempt, exit_status, processors, signal_group, start, thread_variables
from jobrunner.backend import Backend, SchedulerError
from jobrunner.call import INTERRUPTED, UsageError
from jobrunner.report import SIGNALS, Interruption

BACKENDS = {"slurm": "Slurm", "sge": "GridEngine", "pbs": "Pbs"}  # module in this package: class
WARNINGS = (signal.SIGUSR1, signal.SIGALRM)  # of a time limit; after other signals, the scheduler decides
KNOWN_SECONDS = 10.0
# Variables that the scheduler or site sets on a node, besides those with the scheduler's prefixes.
NODE_VARIABLES = (
    "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "HOSTNAME", "MASTER_ADDR", "MASTER_PORT", "NUM_NODES",
    "ROCR_VISIBLE_DEVICES", "TMPDIR", "XDG_RUNTIME_DIR", "ZE_AFFINITY_MASK",
)  # fmt: skip


def backend_of(name: str) -> Backend:
    """The scheduler with this name."""
    return getattr(import_module(f"jobrunner.{name}"), BACKENDS[name])()


class NodeJob:
    """A job on its node.

    Args:
        path: path of spec.json, written by `cluster.Runner.write_spec`.
        number: number of the job.
    """

    def __init__(self, path: Path, number: int) -> None:
        self.path, self.number = path, number
        self.spec = json.loads(path.read_text(encoding="utf-8"))
        self.backend = backend_of(self.spec["backend"])
        if "PATH" in self.spec["environment"]:  # where the scheduler's programs were found
            os.environ["PATH"] = self.spec["environment"]["PATH"]
        self.command = [self.of_job(word) for word in self.spec["command"]]
        self.threads = self.spec["threads"] or processors()

    def of_job(self, text: str) -> str:
        """`text` with the placeholder replaced by the number of the job."""
        return text.replace(self.spec["name"], str(self.number)) if self.spec["name"] else text

    def environment(self) -> dict[str, str]:
        """The environment of the submitting shell, except for variables of the node."""
        own = {
            name: value
            for name, value in os.environ.items()
            if name.startswith(self.backend.variables) or name in NODE_VARIABLES
        }
        environment = {**self.spec["environment"], **own, **thread_variables(self.threads)}
        if not self.spec["gpus"]:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        return environment

    def run(self, stop: Interruption) -> int:
        """Runs the job and writes its log and status file; returns the exit status of the submitted script."""
        status_file = self.path.with_name(f"status.{self.number}")
        status_file.unlink(missing_ok=True)  # of an earlier attempt
        with contextlib.suppress(FileNotFoundError):
            os.truncate(self.path.with_name(f"output.{self.number}"), 0)
        log = Path(self.of_job(self.spec["log"]))
        stopped, error = False, ""
        try:
            os.chdir(self.spec["directory"])
            status, stopped = self.attempt(log, stop)
        except OSError as problem:
            status = 1
            error = f"{socket.gethostname()} could not use {problem.filename}: {problem.strerror}"
        again = stopped and status == INTERRUPTED and self.spec["requeue"] and stop.signal in WARNINGS
        if again and self.backend.requeues:
            try:
                self.backend.requeue()
                return 0
            except (SchedulerError, UsageError) as problem:
                again, error = False, f"could not be requeued: {problem}"
        write_status(status_file, {"status": status, "stopped": stopped, "again": again, "error": error})
        return min(status, 1)  # some statuses have a meaning for schedulers, such as 99 and 100 for Grid Engine

    def attempt(self, log: Path, stop: Interruption) -> tuple[int, bool]:
        """Runs the command once; returns its exit status and whether the scheduler stopped it."""
        nodes, environment = self.spec["nodes"], self.environment()
        machine = f"{self.threads} threads, GPU {environment.get('CUDA_VISIBLE_DEVICES', 'any') or 'none'}"
        starter, forwarded = None, signal.SIGTERM
        if nodes > 1:
            environment |= {"MASTER_ADDR": socket.gethostname(), "MASTER_PORT": free_port(), "NUM_NODES": str(nodes)}
            machine += f" on each of {nodes} nodes, meeting at port {environment['MASTER_PORT']}"
            starter = [*self.backend.launcher(nodes), *program(self.path), str(self.number), "node"]
            forwarded = signal.SIGUSR1
        machine += f", {self.backend.name} job {os.environ.get(self.backend.id_variable)}"
        if restarts := self.backend.restarts():
            machine += f", restart {restarts}"
        if self.spec["requeue"]:
            stop.expect_after(self.spec["warned_after"])
        attempt = Attempt(self.command, log, environment, machine, starter)
        wait(attempt.process, stop, forwarded, self.backend.to_all)
        status = attempt.finish()
        if stop.asked and status in {128 + number for number in SIGNALS}:  # the command does not handle them
            status = INTERRUPTED
        return status, stop.asked and status != 0

    def run_on_node(self, stop: Interruption) -> int:
        """Runs the command on one of several nodes; started by `run` on the first node, which writes the log."""
        process = start(self.command, self.environment(), None)
        wait(process, stop, signal.SIGTERM, (*self.backend.to_all, signal.SIGUSR1))
        return exit_status(process.returncode)


def wait(process: subprocess.Popen, stop: Interruption, forwarded: int, known: tuple[int, ...]) -> None:
    """Waits until the process ends. The first signal is forwarded to its group, as `forwarded`.

    Signals that the scheduler sends to every process (`known`) are not forwarded at once, as a second one could
    interrupt the cleanup, but later if the process is still running, as it may not have received the first.
    """
    due = None
    while process.poll() is None:
        if stop.asked and due is None:
            due = time.monotonic() + (KNOWN_SECONDS if stop.signal in known else 0)
        if due is not None and time.monotonic() >= due:
            signal_group(process, forwarded)
            due = math.inf
        time.sleep(0.1)


def free_port() -> str:
    """A free port of this machine."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return str(listener.getsockname()[1])


def program(spec: Path) -> list[str]:
    """The command that runs this module on a node, without the number of the job.

    It does not depend on Python variables or the locale of the site.
    """
    python = sys.executable or "python3"
    return [python, "-E", "-s", "-X", "utf8", str(Path(__file__).resolve().parents[1] / "job.py"), str(spec)]


def write_status(path: Path, value: dict[str, object]) -> None:
    """Writes a status file atomically, and flushes it to disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "w", encoding="utf-8") as stream:
        json.dump(value, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def main(arguments: list[str]) -> int:
    """Runs a job (arguments SPEC NUMBER), or its command on one of its nodes (SPEC NUMBER node)."""
    stop = Interruption()  # first of all, as a signal may come early
    job = NodeJob(Path(arguments[0]), int(arguments[1]))
    return job.run_on_node(stop) if arguments[2:] == ["node"] else job.run(stop)
