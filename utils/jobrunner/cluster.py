"""Jobs on a cluster: submits them as one array to a scheduler, waits for them, and cancels them if interrupted.

The command is passed as data: it is written with its environment to a file that only its owner may read (`spec.json`,
in its own directory next to the logs, q/<log>.<random>/), and a script of one line that starts utils/job.py with this
file is submitted. On the node, job.py runs the command and writes its exit status to a file `status.<job>`. The
scheduler is asked from time to time about jobs without one: waiting, lost, cancelled, out of time.
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
from jobrunner.backend import Backend, Phase, SchedulerError, State, Submission
from jobrunner.call import INTERRUPTED, Call, RunnerError, UsageError, parse
from jobrunner.config import Config
from jobrunner.job import program
from jobrunner.report import Failure, Interruption, clear_progress, last_lines, say, show_progress, summarise

SUBMIT_PAUSES_SECONDS = (1.0, 4.0, 15.0, 60.0)  # between attempts, while the scheduler is busy
STATUS_DELAY_SECONDS = 120.0  # after which a network file system shows a status file at the latest
UNSEEN_DELAY_SECONDS = 30.0  # the same for jobs that were never seen running: they were probably cancelled
STOPPED_DELAY_SECONDS = 5.0  # the same for jobs that the scheduler stopped: there may be no status file
CANCEL_AGAIN_SECONDS = 10.0
CANCEL_SECONDS = 150.0  # within which cancelled jobs must end
REMARK_SECONDS = 10.0  # until the runner says why nothing happens; doubled after each remark
WARNING_SECONDS = 120  # before the time limit of a job that may be requeued, to write a checkpoint

HELP = """
Submits the jobs as one array, and waits for them. conf/{name}.conf in this directory, or a recipe's own
conf/{name}.conf, maps options to those of the scheduler; set queues, accounts, names of resources etc. there. The
directory of the logs must be on a shared file system; its subdirectory q/ has the state of running jobs.

Ctrl-C and TERM cancel submitted jobs. A job that the scheduler restarts (preemption, a failed node) appends to its
log. With --requeue true and --time, a job gets TERM two minutes before its time limit, and if it then exits with 75,
it is requeued, as often as needed."""


@dataclass
class Job:
    """State of a job that has not ended."""

    number: int
    submitted: str = ""  # id of its array
    state: State | None = None  # None: the scheduler does not know it
    seen: bool = False  # whether it was seen running
    gone_since: float | None = None  # when the scheduler first reported that it no longer runs
    left: dict | None = None  # its status file, if the scheduler stopped it


@dataclass
class Remarks:
    """Says from time to time why nothing happens."""

    since: float = field(default_factory=time.monotonic)
    after: float = field(default_factory=lambda: REMARK_SECONDS)

    def say(self, text: str) -> None:
        """Prints a remark if it is due."""
        waited = time.monotonic() - self.since
        if waited >= self.after:
            self.after = 2 * waited
            say(f"{text} (for {waited:.0f} s now)")

    def reset(self) -> None:
        """Restarts the intervals, as something has happened."""
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
        self.jobs = {number: Job(number) for number in call.jobs}  # that have not ended
        self.failures: list[Failure] = []
        self.submitted: list[str] = []  # ids of arrays
        self.waiting, self.silence, self.disk = Remarks(), Remarks(), Remarks()
        self.began = time.monotonic()

    def run(self) -> int:
        """All jobs; returns the exit status of the whole."""
        self.interruption = Interruption()
        for number in self.call.jobs:
            self.log(number).parent.mkdir(parents=True, exist_ok=True)
        shelf = self.log(self.call.jobs[0]).absolute().parent / "q"
        shelf.mkdir(exist_ok=True)
        base = Path(self.call.log).name.removesuffix(".log")
        for left in sorted(shelf.iterdir()):
            if re.fullmatch(rf"{re.escape(base)}\.[a-z0-9_]{{8}}", left.name):
                self.recover(left)
        self.directory = Path(tempfile.mkdtemp(prefix=f"{base}.", dir=shelf))
        ended = False  # whether nothing that was submitted still runs
        try:
            with owned(self.directory):
                try:
                    self.write_spec()
                    self.submit(self.call.jobs)
                    self.wait()
                finally:
                    ended = not (self.jobs and self.submitted) or self.cancel(self.submitted)
            clear_progress()
            if self.interruption.asked:
                say(f"interrupted: {self.left()}; run the same command again")
                return INTERRUPTED
            return summarise(self.call, self.failures)
        finally:
            if ended:  # otherwise it tells the next runner of this log what to cancel
                shutil.rmtree(self.directory, ignore_errors=True)
            with contextlib.suppress(OSError):  # others use it
                shelf.rmdir()

    def log(self, number: int) -> Path:
        """Path of the log of a job."""
        return Path(self.call.of_job(number, self.call.log))

    # --- Submitting ---

    def write_spec(self) -> None:
        """Writes the description of the jobs for the nodes."""
        call = self.call
        requeue = call.options.get("requeue") == "true"
        spec = {
            "backend": self.backend.name,
            "command": call.command,
            "name": call.name,
            "log": call.log,
            "directory": os.getcwd(),
            "environment": {
                name: value
                for name, value in os.environ.items()
                if not name.startswith(self.backend.variables) and name != "CUDA_VISIBLE_DEVICES"
            },
            "threads": call.number("num_threads", 1),
            "gpus": call.number("gpu", 0),
            "nodes": call.number("num_nodes", 1),
            "requeue": requeue,
            "warned_after": warned_after(call.options.get("time")) if requeue and not self.backend.requeues else 0,
        }
        path = self.directory / "spec.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(spec), encoding="utf-8")

    def submit(self, jobs: range) -> None:
        """Submits jobs as one array; retries if the scheduler is busy.

        Raises:
            RunnerError: the scheduler refused the jobs.
        """
        name = self.directory.name + (f".{len(self.submitted)}" if self.submitted else "")
        at_once = self.call.number("max_jobs_run")
        submission = Submission(name, self.directory / "script.sh", self.command, jobs, at_once, self.directory)
        number = f'"${self.backend.task_variable}"' if len(jobs) > 1 else str(jobs[0])
        command = " ".join(map(shlex.quote, program(self.directory / "spec.json")))
        submission.script.write_bytes(os.fsencode(f"#!/bin/sh\nexec {command} {number}\n"))
        submitted, tried = None, False
        for pause in (*SUBMIT_PAUSES_SECONDS, None):
            try:
                # until there is an answer, the job may have been accepted
                submitted = (self.backend.find(submission) if tried else None) or self.backend.submit(submission)
                break
            except SchedulerError as error:
                tried = True
                if pause is None or not re.search(self.backend.busy, str(error), re.IGNORECASE):
                    command = " ".join(map(quote, self.command))
                    raise RunnerError(
                        f"{self.call.log}: not submitted: {error}; jobs {jobs[0]}-{jobs[-1]}; command: {command}"
                    ) from error
                say(f"{error}; trying again in {pause:.0f} s")
                until = time.monotonic() + pause
                while time.monotonic() < until and not self.interruption.asked:
                    time.sleep(0.1)
                if self.interruption.asked:
                    with contextlib.suppress(SchedulerError):
                        submitted = self.backend.find(submission)
                    break
        if submitted:
            self.submitted.append(submitted)
            for number in jobs:
                self.jobs[number] = Job(number, submitted)
        (self.directory / "submitted").write_text("\n".join(self.submitted), encoding="utf-8")

    def submit_again(self, job: Job) -> None:
        """Submits a job again that was warned before its time limit."""
        (self.directory / f"status.{job.number}").unlink()
        try:
            self.submit(range(job.number, job.number + 1))
        except RunnerError as error:
            self.end(job, INTERRUPTED, str(error))

    # --- Waiting ---

    def wait(self) -> None:
        """Waits until every job has ended, or a signal arrives."""
        next_look = next_question = next_progress = 0.0
        while self.jobs and not self.interruption.asked:
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
        """Reads new status files."""
        fresh = self.directory / "look"  # a change of our own invalidates the cache of a network file system
        try:
            fresh.touch()
            fresh.unlink()
            names = set(os.listdir(self.directory))
        except FileNotFoundError:  # somebody removed it, so that jobs cannot report any more
            raise
        except OSError as error:  # for instance a full disk
            self.disk.say(f"{self.directory}: {error.strerror}; its jobs continue")
            return
        for job in list(self.jobs.values()):
            if f"status.{job.number}" not in names:
                job.left = None  # it was started again
                continue
            try:
                left = json.loads((self.directory / f"status.{job.number}").read_text(encoding="utf-8"))
            except OSError:  # removed again, or a network file system is unreliable
                continue
            if left["again"]:
                self.submit_again(job)
            elif left["stopped"]:
                job.left = left  # it may be started again: the scheduler knows
            else:
                self.end(job, left["status"], left["error"])

    def ask(self) -> None:
        """Asks the scheduler, and ends jobs that will no longer write a status."""
        states: dict[int, State] = {}
        try:
            for submitted in self.submitted:
                own = [job.number for job in self.jobs.values() if job.submitted == submitted]
                known = self.backend.states(submitted, own) if own else {}
                states |= {number: known[number] for number in own if number in known}
        except SchedulerError as error:
            self.silence.say(f"the scheduler does not answer: {error}; its jobs continue")
            return
        self.silence.reset()
        for job in list(self.jobs.values()):
            job.state = states.get(job.number)
            job.seen = job.seen or (job.state is not None and job.state.phase != Phase.WAITING)
            if job.state and job.state.phase in (Phase.WAITING, Phase.RUNNING):
                job.gone_since = None
                continue
            job.gone_since = job.gone_since or time.monotonic()
            gone = time.monotonic() - job.gone_since
            phase = job.state.phase if job.state else None
            if job.left:
                reason = job.state.reason if phase == Phase.STOPPED else ""
                self.end(job, job.left["status"], job.left["error"] or reason)
            elif phase == Phase.STOPPED and gone >= STOPPED_DELAY_SECONDS:
                self.end(job, job.state.status, job.state.reason)
            elif gone >= STATUS_DELAY_SECONDS or (gone >= STOPPED_DELAY_SECONDS and self.hopeless(job)):
                self.end(job, 1, self.lost(job))
            elif phase is None and not job.seen and gone >= UNSEEN_DELAY_SECONDS:
                self.end(job, INTERRUPTED, "cancelled")
        waiting = [job for job in self.jobs.values() if job.state and job.state.phase == Phase.WAITING]
        if waiting and len(waiting) == len(self.jobs):
            why = waiting[0].state.reason or "no reason given"
            self.waiting.say(f"{self.backend.name} job {waiting[0].submitted} waits: {why}")
        else:
            self.waiting.reset()

    def end(self, job: Job, status: int, reason: str) -> None:
        """Records the end of a job."""
        del self.jobs[job.number]
        if status:
            self.failures.append(Failure(job.number, status, self.log(job.number), reason))

    def hopeless(self, job: Job) -> bool:
        """Whether a job that is no longer in the queue cannot have a status file that is merely late."""
        output = self.directory / f"output.{job.number}"  # exists if job.py failed or could not be started
        return (job.state is not None and job.state.phase == Phase.FAILED) or (
            output.exists() and output.stat().st_size > 0
        )

    def lost(self, job: Job) -> str:
        """What is known about a job that ended without a status."""
        output = self.directory / f"output.{job.number}"
        if output.exists() and output.stat().st_size:
            return f"lost; its script wrote: {last_lines(output)[-1]}"
        node = (job.state.node if job.state else "") or "its node"
        why = f" ({job.state.reason})" if job.state and job.state.reason else ""
        logs = self.directory.parent.parent
        return f"lost: it left no status{why}; can {node} write {logs}, and is that on a shared file system?"

    def show_progress(self) -> None:
        """Shows the last line of the log of a single job, or the number of waiting and running jobs."""
        running = [job for job in self.jobs.values() if job.state and job.state.phase == Phase.RUNNING]
        if len(self.jobs) == 1 and running:
            show_progress(lambda: last_lines(self.log(running[0].number))[-1])
        else:
            submitted = " ".join(self.submitted)
            show_progress(lambda: f"{self.backend.name} job {submitted}: {len(running)} running, {self.left()}")

    def left(self) -> str:
        """The number of jobs that have not ended, in words."""
        return f"{len(self.jobs)} of {len(self.call.jobs)} not ended"

    # --- Cancelling ---

    def cancel(self, submitted: list[str]) -> bool:
        """Cancels arrays and waits until none of their jobs is running; returns whether that happened in time."""
        deadline = time.monotonic() + CANCEL_SECONDS
        said, again = False, 0.0
        while time.monotonic() < deadline:
            try:
                alive = [one for one in submitted if self.alive(one)]
                if not alive:
                    return True
                if not said:
                    jobs = " ".join(alive)
                    say(f"cancelling {self.backend.name} job {jobs}, and waiting for its running jobs to stop")
                    said = True
                if time.monotonic() >= again:  # a job that was just warned may have requeued itself
                    for one in alive:
                        self.backend.cancel(one)
                    again = time.monotonic() + CANCEL_AGAIN_SECONDS
            except SchedulerError as error:
                self.silence.say(f"the scheduler does not answer: {error}")
            time.sleep(0.5)
        say(f"{self.backend.name} job {' '.join(submitted)} has not ended; cancel it manually")
        return False

    def alive(self, submitted: str) -> bool:
        """Whether any job of an array is waiting or running."""
        return any(
            state.phase in (Phase.WAITING, Phase.RUNNING) for state in self.backend.states(submitted, ()).values()
        )

    def recover(self, left: Path) -> None:
        """Cancels jobs that another runner of the same log left behind, as two jobs must not write the same files.

        Raises:
            RunnerError: they are still running.
        """
        try:
            with owned(left):
                try:
                    submitted = (left / "submitted").read_text(encoding="utf-8").split()
                except FileNotFoundError:
                    submitted = []
                try:
                    if not submitted:
                        found = self.backend.find(Submission(left.name, left, self.command, self.call.jobs, None, left))
                        submitted = [found] if found else []
                except SchedulerError as error:
                    raise RunnerError(f"{self.call.log}: jobs of a killed runner may still run: {error}") from error
                if submitted:
                    say(f"{self.call.log}: a runner of the same jobs was killed")
                    if not self.cancel(submitted):
                        raise RunnerError(
                            f"{self.call.log}: {self.backend.name} job {' '.join(submitted)} of a killed runner still "
                            "runs; cancel it first"
                        )
        except BlockingIOError as error:
            owner = (left / "owner").read_text(encoding="utf-8").strip()
            raise RunnerError(f"{self.call.log}: another runner ({owner}) uses it; wait for it, or stop it") from error
        shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def owned(directory: Path):
    """Locks the directory of a submission for the lifetime of this process.

    Raises:
        BlockingIOError: another process holds the lock.
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


def warned_after(limit: str | None) -> int:
    """Seconds after its start at which a job is warned, given its time limit (hours:minutes:seconds); 0: no limit."""
    hours, minutes, seconds = map(int, (limit or "0:0:0").split(":"))
    seconds += 60 * (minutes + 60 * hours)
    return max(seconds - WARNING_SECONDS, (seconds + 1) // 2)


def main(backend: Backend, arguments: list[str], usage: str) -> int:
    """Parses the command line, runs the jobs, and returns the exit status."""
    call = parse(arguments, usage.strip() + "\n" + HELP.format(name=backend.name), further=True)
    default = Path(__file__).resolve().parents[1] / "conf" / f"{backend.name}.conf"
    config = Config(Path(call.options.pop("config", default)))
    command = config.command + config.arguments(call)
    if call.number("num_nodes", 1) > 1 and not backend.many_nodes:
        raise UsageError(f"--num-nodes {call.options['num_nodes']}: on {backend.name} a job has one node")
    return Runner(backend, call, command).run()
