"""The interface of schedulers (Backend).

To add one: a module in this package with a subclass of Backend, its name in `jobrunner.job.BACKENDS`, a program
utils/<name>.py, a file utils/conf/<name>.conf, and a case in utils/cmd.sh.
"""

import abc
import os
import subprocess
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from jobrunner.call import UsageError

SCHEDULER_SECONDS = 60.0  # a call of the scheduler's programs may take so long
WARNING_SECONDS = 120  # before the end of a job that may be queued again: for writing a checkpoint


class Phase(Enum):
    """Where a job is."""

    WAITING = "waiting"  # for its first start, or after it was queued again
    RUNNING = "running"
    ENDED = "ended"  # by itself: its status file is there, or will be
    FAILED = "failed"  # to start, or was killed with its script: there hardly is a status file
    STOPPED = "stopped"  # by the scheduler, or before it could start: there need not be a status file


@dataclass(frozen=True)
class State:
    """What the scheduler says of a job.

    Attributes:
        phase: where it is.
        reason: why it waits, how it was stopped ("cancelled", "out of time"), or why it failed to start.
        node: where it runs or ran, if that is known.
        status: the exit status that a stopped job counts as where it left none: 75 where running the same command again
            may well help (cancelled, preempted, the node failed), else 1.
    """

    phase: Phase
    reason: str = ""
    node: str = ""
    status: int = 1


@dataclass(frozen=True)
class Submission:
    """What a backend submits.

    Attributes:
        name: of the job, unique: to be found by, and for people.
        script: shell script to be run once for each job.
        command: the scheduler's program with its options, from the configuration file.
        jobs: numbers of the jobs.
        max_jobs_run: at most so many at once; None for no limit.
        directory: the submission's own; its path may hold any character. What job N's script writes (hardly ever
            anything) belongs into `output.N` there.
    """

    name: str
    script: Path
    command: list[str]
    jobs: range
    max_jobs_run: int | None
    directory: Path


class SchedulerError(Exception):
    """A program of the scheduler failed; the message is what it said."""


class Backend(abc.ABC):
    """What a scheduler must be able to do. On the submitting machine: submit, states, cancel. On the node: the rest.

    Attributes:
        name: of the scheduler, and of its configuration file.
        task_variable: environment variable with the job's number.
        id_variable, restart_variable: with the scheduler's name of the job, and with how often it has been restarted.
        variables: beginnings of the names of variables that the scheduler sets: they are not taken over to jobs.
        busy: regular expression of what the scheduler says when the same call may succeed a little later.
        to_all: signals that the scheduler sends to every process of a job; others reach its script only.
        warns: whether the scheduler warns a job before its time limit (USR1); if not, the job does so itself.
        many_nodes: whether a job may have more than one node (`launcher`).
    """

    name: str
    task_variable: str
    id_variable: str
    restart_variable: str
    variables: tuple[str, ...]
    busy: str
    to_all: tuple[int, ...] = ()
    warns = True
    many_nodes = False

    @abc.abstractmethod
    def submit(self, submission: Submission) -> str:
        """Submits one array; returns its id.

        Raises:
            SchedulerError: it was refused, or the scheduler did not answer.
        """

    @abc.abstractmethod
    def find(self, name: str, command: list[str]) -> str | None:
        """The id of the array with this name, if there is one: it may have been accepted although nobody said so.

        Args:
            name: of the array.
            command: the one that it was submitted with, whose options may say where to.

        Raises:
            SchedulerError: the scheduler did not answer.
        """

    @abc.abstractmethod
    def states(self, submitted: str) -> dict[int, State]:
        """State of each job of an array, by its number; those that the scheduler no longer knows are missing.

        Raises:
            SchedulerError: the scheduler did not answer.
        """

    @abc.abstractmethod
    def cancel(self, submitted: str) -> None:
        """Cancels what has not ended; jobs get TERM before KILL where the scheduler can do that.

        Raises:
            SchedulerError: the scheduler did not answer.
        """

    @abc.abstractmethod
    def requeue(self) -> int:
        """On the node: has the scheduler queue this very job again; returns the status that its script shall exit with.

        Raises:
            SchedulerError: it would not.
        """

    def restarts(self) -> int:
        """On the node: how often this job has been restarted."""
        text = os.environ.get(self.restart_variable, "")
        return int(text) if text.isdecimal() else 0

    def launcher(self, nodes: int) -> list[str]:
        """On the first node: words before a command that start it once on each node.

        What they start forwards USR1 to all processes of the command. (TERM would make srun kill it.)
        """
        raise NotImplementedError


def warned_after(limit: str) -> int:
    """Seconds after its start when a job is warned, by its time limit as hours:minutes:seconds."""
    hours, minutes, seconds = map(int, limit.split(":"))
    seconds += 60 * (minutes + 60 * hours)
    return max(seconds - WARNING_SECONDS, (seconds + 1) // 2)


def call_scheduler(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Standard output of one of the scheduler's programs. It runs in a session of its own: Ctrl-C does not reach it.

    Raises:
        SchedulerError: it failed, or took too long.
        UsageError: there is no such program.
    """
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=SCHEDULER_SECONDS, check=False, env=environment, start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise UsageError(f"no program {command[0]} on this machine; see cmd_backend in utils/cmd.sh") from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerError(f"{command[0]}: no answer for {SCHEDULER_SECONDS:.0f} s (timed out)") from error
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split()) or f"status {done.returncode}"
        raise SchedulerError(said if said.startswith(command[0]) else f"{command[0]}: {said}")
    return done.stdout
