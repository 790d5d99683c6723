"""The interface of schedulers (Backend).

To add one: a module in this package with a subclass of Backend, its name in `jobrunner.job.BACKENDS`, a program
utils/<name>.py, a file utils/conf/<name>.conf, and a case in utils/cmd.sh.
"""

import abc
import os
import re
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from jobrunner.call import UsageError

SCHEDULER_SECONDS = 60.0  # time limit for calls of the scheduler's programs
PLAIN_PATH = re.compile(r"[A-Za-z0-9_./+=@~-]+")


class Phase(Enum):
    """Phase of a job."""

    WAITING = "waiting"  # for its first start, or requeued
    RUNNING = "running"
    ENDED = "ended"  # by itself: its status file exists, or will soon
    FAILED = "failed"  # to start, or was killed with its script: there is probably no status file
    STOPPED = "stopped"  # by the scheduler, or before it could start: there may be no status file


@dataclass(frozen=True)
class State:
    """State of a job according to the scheduler.

    Attributes:
        phase: phase of the job.
        reason: why it waits, how it was stopped ("cancelled", "out of time"), or why it failed to start.
        node: where it runs or ran, if known.
        status: exit status of a stopped job without a status file: 75 if running the same command again may help
            (cancelled, preempted, the node failed), else 1.
    """

    phase: Phase
    reason: str = ""
    node: str = ""
    status: int = 1


@dataclass(frozen=True)
class Submission:
    """A job array to submit.

    Attributes:
        name: unique name, to find the array by, and for people.
        script: shell script, run once for each job.
        command: the scheduler's program with its options, from the configuration file.
        jobs: numbers of the jobs.
        max_jobs_run: maximum number of concurrent jobs; None for no limit.
        directory: directory of the submission; its path may contain any character.
    """

    name: str
    script: Path
    command: list[str]
    jobs: range
    max_jobs_run: int | None
    directory: Path

    @property
    def short_name(self) -> str:
        """A name that every qsub accepts (15 characters, the first a letter); keeps the end, which is unique."""
        return "j" + re.sub(r"[^A-Za-z0-9_.-]", "_", self.name)[-14:]

    def output(self, job: str) -> str:
        """File for the output of a job script (normally none), given qsub's name for the job number."""
        path = f"{self.directory}/output.{job}"  # qsub would look for hosts and variables in others
        return path if PLAIN_PATH.fullmatch(str(self.directory)) else "/dev/null"


class SchedulerError(Exception):
    """A program of the scheduler failed; the message is its output."""


class Backend(abc.ABC):
    """Interface of a scheduler. On the submitting machine: submit, find, states, cancel. On the node: the rest.

    Attributes:
        name: name of the scheduler, and of its configuration file.
        task_variable: environment variable with the number of the job.
        id_variable, restart_variable: variables with the scheduler's id of the job, and with the number of restarts.
        variables: prefixes of variables that the scheduler sets, which are not copied to jobs.
        busy: regular expression for messages of the scheduler after which the same call may succeed later.
        to_all: signals that the scheduler sends to every process of a job; others reach only its script.
        requeues: whether the scheduler warns a job before its time limit (USR1) and lets it requeue itself (`requeue`).
            Otherwise the job warns itself, and the runner submits it again.
        many_nodes: whether a job can have several nodes (`launcher`).
    """

    name: str
    task_variable: str
    id_variable: str
    restart_variable: str
    variables: tuple[str, ...]
    busy: str
    to_all: tuple[int, ...] = ()
    requeues = False
    many_nodes = False

    @abc.abstractmethod
    def submit(self, submission: Submission) -> str:
        """Submits one array; returns its id.

        Raises:
            SchedulerError: the scheduler refused it, or did not answer.
        """

    @abc.abstractmethod
    def find(self, submission: Submission) -> str | None:
        """The id of a submission that was accepted although the answer was lost, or None.

        Raises:
            SchedulerError: the scheduler did not answer.
        """

    @abc.abstractmethod
    def states(self, submitted: str, jobs: Collection[int]) -> dict[int, State]:
        """States of jobs of an array, by number, without those that the scheduler no longer knows.

        Args:
            submitted: id of the array.
            jobs: numbers of the jobs; others may be returned, too.

        Raises:
            SchedulerError: the scheduler did not answer.
        """

    @abc.abstractmethod
    def cancel(self, submitted: str) -> None:
        """Cancels jobs that have not ended; they get TERM before KILL if the scheduler can do that.

        Raises:
            SchedulerError: the scheduler did not answer.
        """

    def requeue(self) -> None:
        """On the node: asks the scheduler to requeue this job.

        Raises:
            SchedulerError: the scheduler refused.
        """
        raise NotImplementedError

    def restarts(self) -> int:
        """On the node: number of restarts of this job."""
        text = os.environ.get(self.restart_variable, "")
        return int(text) if text.isdecimal() else 0

    def launcher(self, nodes: int) -> list[str]:
        """On the first node: words before a command that start it once on each node.

        The launcher forwards USR1 to all processes of the command. (TERM would make srun kill it.)
        """
        raise NotImplementedError


def submit(command: list[str], job_id: str, environment: dict[str, str] | None = None) -> str:
    """Calls sbatch or qsub; returns the match of the regular expression `job_id` in its answer.

    Raises:
        SchedulerError: the scheduler refused the job, or did not answer.
    """
    answer = call_scheduler(command, environment)
    found = re.search(job_id, answer, re.MULTILINE)
    if not found:
        raise SchedulerError(f"{command[0]}: no job id in its answer {answer.strip()!r}")
    return found[0]


def call_scheduler(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Standard output of one of the scheduler's programs. It runs in its own session, so Ctrl-C does not reach it.

    Raises:
        SchedulerError: it failed, or took too long.
        UsageError: no such program.
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
