"""Jobs on a cluster: submits them as one array to a real scheduler, waits for them, and cancels them if interrupted.

The command travels as data: a file that only its owner may read (`spec.json`, in a directory of its own beside the
logs, q/<log>.<random>/) holds it with its environment, and what is submitted is a script of one line that starts
utils/job.py with it. On the node that runs the command and leaves a file `status.<job>`, from which the exit status is
taken. The scheduler is asked now and then about jobs that have none: waiting, lost, cancelled, out of time.
"""

import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
import socket
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from jobrunner.attempt import now, quote
from jobrunner.backend import Backend, Phase, SchedulerError, State, Submission, warned_after
from jobrunner.call import INTERRUPTED, Call, RunnerError, UsageError, parse
from jobrunner.config import Config
from jobrunner.job import program
from jobrunner.report import Failure, Interruption, clear_progress, last_lines, say, show_progress, summarise

SUBMIT_PAUSES_SECONDS = (1.0, 4.0, 15.0, 60.0)  # between attempts, while the scheduler is too busy
STATUS_DELAY_SECONDS = 120.0  # a network file system may show a status file so late
STOPPED_DELAY_SECONDS = 5.0  # the same of jobs that the scheduler stopped: there need not be one
CANCEL_AGAIN_SECONDS = 10.0
CANCEL_SECONDS = 150.0  # jobs that were cancelled end within this time
REMARK_SECONDS = 10.0  # after which it is said why nothing happens; then each time after twice as long


@dataclass
class Job:
    """What is known of a job that has not come to its end."""

    number: int
    state: State | None = None  # None: the scheduler does not know it
    gone_since: float | None = None  # when the scheduler first said that it does not run any more
    left: dict | None = None  # its status file, if the scheduler stopped it


@dataclass
class Remarks:
    """Says why nothing happens, now and then."""

    since: float = field(default_factory=time.monotonic)
    after: float = REMARK_SECONDS

    def say(self, text: str) -> None:
        """If it is time for it."""
        waited = time.monotonic() - self.since
        if waited >= self.after:
            self.after = 2 * waited
            say(f"{text} (for {waited:.0f} s now)")

    def reset(self) -> None:
        """Something has happened."""
        self.since, self.after = time.monotonic(), REMARK_SECONDS


class Runner:
    """Runs the jobs of a call.

    Args:
        backend: the scheduler.
        call: the command line.
        command: the scheduler's program with its options.
    """

    def __init__(self, backend: Backend, call: Call, command: list[str]) -> None:
        self.backend, self.call, self.command = backend, call, command
        self.jobs = {number: Job(number) for number in call.jobs}  # that have not come to their end
        self.failures: list[Failure] = []
        self.submitted = ""
        self.waiting, self.silence, self.disk = Remarks(), Remarks(), Remarks()
        self.began = time.monotonic()

    def run(self) -> int:
        """All jobs; returns the exit status of the whole."""
        interruption = Interruption()
        for number in self.call.jobs:
            self.log(number).parent.mkdir(parents=True, exist_ok=True)
        shelf = self.log(self.call.jobs[0]).absolute().parent / "q"
        shelf.mkdir(exist_ok=True)
        base = Path(self.call.log).name.removesuffix(".log")
        for left in sorted(shelf.iterdir()):
            if re.fullmatch(rf"{re.escape(base)}\.[a-z0-9_]{{8}}", left.name):
                self.recover(left)
        self.directory = Path(tempfile.mkdtemp(prefix=f"{base}.", dir=shelf))
        ended = False  # whether nothing runs any more of what was submitted
        try:
            with owned(self.directory):
                try:
                    self.submit(interruption)
                    self.wait(interruption)
                finally:
                    ended = not (self.jobs and self.submitted) or self.cancel(self.submitted)
            clear_progress()
            if interruption.asked:
                say(f"interrupted: {self.left()}; run the same command again")
                return INTERRUPTED
            return summarise(self.call, self.failures)
        finally:
            if ended:  # else it tells the next runner of this log what to see to
                shutil.rmtree(self.directory, ignore_errors=True)
            with contextlib.suppress(OSError):  # others are at work there
                shelf.rmdir()

    def log(self, number: int) -> Path:
        """A job's log."""
        return Path(self.call.of_job(number, self.call.log))

    # --- Submitting ---

    def submit(self, interruption: Interruption) -> None:
        """Writes what the node needs and hands the array over to the scheduler.

        Raises:
            RunnerError: it was refused.
        """
        self.write_spec()
        number = self.call.number("max_jobs_run")
        submission = Submission(
            self.directory.name, self.directory / "script.sh", self.command, self.call.jobs, number, self.directory
        )
        tried = False
        for pause in (*SUBMIT_PAUSES_SECONDS, None):
            try:
                # no answer to this is not the answer that there is none
                found = self.backend.find(submission.name, self.command) if tried else None
                self.submitted = found or self.backend.submit(submission)
                break
            except SchedulerError as error:
                tried = True
                if pause is None or not re.search(self.backend.busy, str(error), re.IGNORECASE):
                    command = " ".join(map(quote, self.command))
                    numbers = f"{self.call.jobs[0]}-{self.call.jobs[-1]}"
                    raise RunnerError(
                        f"{self.call.log}: not submitted: {error}; jobs {numbers}; command: {command}"
                    ) from error
                say(f"{error}; trying again in {pause:.0f} s")
                until = time.monotonic() + pause
                while time.monotonic() < until and not interruption.asked:
                    time.sleep(0.1)
                if interruption.asked:
                    with contextlib.suppress(SchedulerError):
                        self.submitted = self.backend.find(submission.name, self.command) or ""
                    break
        (self.directory / "submitted").write_text(self.submitted, encoding="utf-8")

    def write_spec(self) -> None:
        """The description of the jobs, and the script that is submitted."""
        call = self.call
        spec = {
            "backend": self.backend.name,
            "command": [portable(word) for word in call.command],
            "name": call.name,
            "log": portable(call.log),
            "directory": portable(os.getcwd()),
            "environment": {
                portable(name): portable(value)
                for name, value in os.environ.items()
                if not name.startswith(self.backend.variables) and name != "CUDA_VISIBLE_DEVICES"
            },
            "threads": call.number("num_threads", 1),
            "gpus": call.number("gpu", 0),
            "nodes": call.number("num_nodes", 1),
            "first": call.jobs[0],
            "requeue": call.options.get("requeue") == "true",
            "warned_after": 0 if self.backend.warns else warned_after(call.options.get("time", "0:00:00")),
        }
        path = self.directory / "spec.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(spec), encoding="utf-8")
        script = f"#!/bin/sh\nexec {' '.join(map(shlex.quote, program(path)))}\n"
        (self.directory / "script.sh").write_bytes(os.fsencode(script))

    # --- Waiting ---

    def wait(self, interruption: Interruption) -> None:
        """Until every job has come to its end, or a signal comes."""
        next_look = next_question = next_progress = 0.0
        while self.jobs and not interruption.asked:
            elapsed = time.monotonic() - self.began
            if elapsed >= next_look:
                self.look()
                next_look = elapsed + min(max(elapsed / 20, 0.1), 3.0)
            if elapsed >= next_question and self.jobs:
                self.ask()
                next_question = elapsed + min(max(elapsed / 10, 0.5), 30.0)
            if elapsed >= next_progress:
                self.show_progress()
                next_progress = elapsed + 0.5
            time.sleep(0.05)

    def look(self) -> None:
        """Takes the status files that have come."""
        fresh = self.directory / "look"  # a change of one's own makes a network file system look afresh
        try:
            fresh.touch()
            fresh.unlink()
        except OSError as error:  # a full disk is no reason to give jobs up
            self.disk.say(f"{self.directory}: {error.strerror}; its jobs continue")
        try:
            names = set(os.listdir(self.directory))
        except FileNotFoundError:  # somebody removed it, so that jobs cannot report any more
            raise
        except OSError as error:
            self.disk.say(f"{self.directory}: {error.strerror}; its jobs continue")
            return
        for job in list(self.jobs.values()):
            if f"status.{job.number}" not in names:
                job.left = None  # it has been started again
                continue
            try:
                left = json.loads((self.directory / f"status.{job.number}").read_text(encoding="utf-8"))
            except OSError:  # gone again, or a network file system stumbles
                continue
            if left["stopped"]:
                job.left = left  # it may yet be started again: the scheduler knows
            else:
                self.end(job, left["status"], left["error"])

    def ask(self) -> None:
        """Asks the scheduler, and ends the jobs that will leave no status any more."""
        try:
            states = self.backend.states(self.submitted)
        except SchedulerError as error:
            self.silence.say(f"the scheduler does not answer: {error}; its jobs continue")
            return
        self.silence.reset()
        for job in list(self.jobs.values()):
            job.state = states.get(job.number)
            if job.state and job.state.phase in (Phase.WAITING, Phase.RUNNING):
                job.gone_since = None
                continue
            job.gone_since = job.gone_since or time.monotonic()
            gone = time.monotonic() - job.gone_since
            phase = job.state.phase if job.state else None
            if job.left:
                self.end(
                    job, job.left["status"], job.left["error"] or (job.state.reason if phase == Phase.STOPPED else "")
                )
            elif phase == Phase.STOPPED and gone >= STOPPED_DELAY_SECONDS:
                self.end(job, job.state.status, job.state.reason)
            elif gone >= STATUS_DELAY_SECONDS or (gone >= STOPPED_DELAY_SECONDS and self.hopeless(job)):
                self.end(job, 1, self.lost(job))
        waiting = [job for job in self.jobs.values() if job.state and job.state.phase == Phase.WAITING]
        if waiting and len(waiting) == len(self.jobs):
            why = waiting[0].state.reason or "no reason given"
            self.waiting.say(f"{self.backend.name} job {self.submitted} waits: {why}")
        else:
            self.waiting.reset()

    def end(self, job: Job, status: int, reason: str) -> None:
        """A job has come to its end."""
        del self.jobs[job.number]
        if status:
            self.failures.append(Failure(job.number, status, self.log(job.number), reason))

    def hopeless(self, job: Job) -> bool:
        """Whether a job that is not in the queue any more cannot have left a status file that only comes late."""
        output = self.directory / f"output.{job.number}"  # where job.py went wrong, or could not be started
        return (job.state is not None and job.state.phase == Phase.FAILED) or (
            output.exists() and output.stat().st_size > 0
        )

    def lost(self, job: Job) -> str:
        """What can be said of a job that ended without a status."""
        output = self.directory / f"output.{job.number}"
        if output.exists() and output.stat().st_size:
            return f"lost; its script wrote: {last_lines(output)[-1]}"
        node = (job.state.node if job.state else "") or "its node"
        why = f" ({job.state.reason})" if job.state and job.state.reason else ""
        logs = self.directory.parent.parent
        return f"lost: it left no status{why}; can {node} write {logs}, and is that on a shared file system?"

    def show_progress(self) -> None:
        """The last line that a lone job wrote, or how many jobs wait and run."""
        running = [job for job in self.jobs.values() if job.state and job.state.phase == Phase.RUNNING]
        if len(self.jobs) == 1 and running:
            show_progress(lambda: last_lines(self.log(running[0].number))[-1])
        else:
            show_progress(lambda: f"{self.backend.name} job {self.submitted}: {len(running)} running, {self.left()}")

    def left(self) -> str:
        """How many jobs have not come to their end."""
        return f"{len(self.jobs)} of {len(self.call.jobs)} not ended"

    # --- Cancelling ---

    def cancel(self, submitted: str) -> bool:
        """Cancels an array and waits until none of its jobs runs any more; returns whether that came to pass."""
        deadline = time.monotonic() + CANCEL_SECONDS
        said, again = False, 0.0
        while time.monotonic() < deadline:
            try:
                states = self.backend.states(submitted).values()
                if not any(state.phase in (Phase.WAITING, Phase.RUNNING) for state in states):
                    return True
                if not said:
                    say(f"cancelling {self.backend.name} job {submitted}, and waiting for its running jobs to stop")
                    said = True
                if time.monotonic() >= again:  # a job that was just warned may have queued itself in the meantime
                    self.backend.cancel(submitted)
                    again = time.monotonic() + CANCEL_AGAIN_SECONDS
            except SchedulerError as error:
                self.silence.say(f"the scheduler does not answer: {error}")
            time.sleep(0.5)
        say(f"{self.backend.name} job {submitted} has not ended; cancel it manually")
        return False

    def recover(self, left: Path) -> None:
        """What another runner of the same log left behind: its jobs must not write beside ours.

        Raises:
            RunnerError: it still runs.
        """
        try:
            with owned(left):
                submitted = (left / "submitted").read_text(encoding="utf-8") if (left / "submitted").exists() else ""
                try:
                    submitted = submitted or self.backend.find(left.name, self.command) or ""
                except SchedulerError as error:
                    raise RunnerError(f"{self.call.log}: jobs of a killed runner may still run: {error}") from error
                if submitted:
                    say(f"{self.call.log}: a runner of the same jobs was killed")
                    if not self.cancel(submitted):
                        raise RunnerError(
                            f"{self.call.log}: {self.backend.name} job {submitted} of a killed runner still runs; "
                            "cancel it first"
                        )
        except BlockingIOError as error:
            owner = (left / "owner").read_text(encoding="utf-8").strip()
            raise RunnerError(f"{self.call.log}: another runner ({owner}) uses it; wait for it, or stop it") from error
        shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def owned(directory: Path):
    """Marks a submission's directory as that of this process for as long as it lives.

    Raises:
        BlockingIOError: it is that of another.
    """
    with open(directory / "owner", "a", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # a file system without locks
            pass
        stream.truncate(0)
        stream.write(f"host {socket.gethostname()}, process {os.getpid()}, since {now()}\n")
        stream.flush()
        yield


def portable(text: str) -> str:
    """Text from this process's surroundings such that UTF-8 gives back its bytes, whatever the locale here."""
    return os.fsencode(text).decode("utf-8", errors="surrogateescape")


def main(backend: Backend, arguments: list[str], usage: str) -> int:
    """Parses, runs, and returns the exit status."""
    call = parse(arguments, usage, further=True)
    default = Path(__file__).resolve().parents[1] / "conf" / f"{backend.name}.conf"
    config = Config(Path(call.options.pop("config", default)))
    command = config.command + config.arguments(call)
    if call.number("num_nodes", 1) > 1 and not backend.many_nodes:
        raise UsageError(f"--num-nodes {call.options['num_nodes']}: on {backend.name} a job has one node")
    return Runner(backend, call, command).run()
