#!/usr/bin/env python3
"""Runs jobs on this machine, in Kaldi's calling convention.

    local.py [options] [JOB=1:N] [options] logs/x.JOB.log command argument ... JOB ...

JOB may be any name; every occurrence of it in the log's path and in the command becomes the job's number. Options:
  --num-threads N     processors of each job (default 1; 0: all of this machine)
  --gpu N             GPUs of each job (default 0: the job sees none)
  --max-jobs-run N    at most so many jobs at once (default: processors / threads, and GPUs / gpu)
  --mem 8G, --time T  for clusters; accepted and not enforced here

Each job's output goes to its log, which is appended to, between a head (host, start, command) and an end (exit status,
duration). Exit status: 0; 2 for wrong usage, here or of all jobs that failed; 75 if interrupted, or if all jobs that
failed ended with 75 (run the same command again); 1 if a job failed otherwise. Failing jobs are named, with the last
lines of the first three logs.

This is Python and not shell because arguments must stay data (no shell sees them again), each job needs a process
group of its own that signals reach, and results are collected from many jobs at once. Only the standard library is
used, so that any Python >= 3.10 runs it before an environment is there. Other backends (Slurm, SGE, PBS) are programs
of the same convention beside this one; utils/cmd.sh chooses.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

WRONG_USAGE, INTERRUPTED = 2, 75
GRACE_SECONDS = 120.0  # to finish a training step and write a checkpoint, after which jobs are killed
TAIL_LINES, TAIL_LOGS, TAIL_WIDTH = 8, 3, 1000  # an error that says what to do is one long line
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class UsageError(Exception):
    """The command line is wrong; the message says how."""


@dataclass
class Request:
    """A parsed command line."""

    log: str
    command: list[str]
    name: str | None = None
    jobs: range = range(1, 2)
    threads: int = 1
    gpus: int = 0
    max_jobs_run: int | None = None

    def of_job(self, job: int, text: str) -> str:
        """`text` with the job's number in place of its name."""
        return text.replace(self.name, str(job)) if self.name else text


@dataclass
class Job:
    """A running job, and how it ended."""

    number: int
    log: Path
    process: subprocess.Popen
    output: BinaryIO
    gpus: list[str]
    started: float = field(default_factory=time.monotonic)
    status: int = 0


def whole_number(option: str, text: str, least: int) -> int:
    """The value of an option that counts something."""
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < least:
        raise UsageError(f"{option} {text!r}: a whole number of at least {least} is expected")
    return int(text)


def parse(arguments: list[str]) -> Request:
    """Reads options and JOB=a:b, in any order, then the log and the command."""
    request = Request(log="", command=[])
    rest = list(arguments)
    while rest:
        word = rest[0]
        if word in ("-h", "--help"):
            print(__doc__.strip())
            raise SystemExit(0)
        if word.startswith("-"):
            option = "--" + word.lstrip("-").replace("_", "-")
            if not word.startswith("--") or option not in OPTIONS:
                raise UsageError(f"unknown option {word!r}; known are {', '.join(OPTIONS)}")
            if len(rest) < 2:
                raise UsageError(f"{word} wants a value")
            OPTIONS[option](request, option, rest[1])
            del rest[:2]
        elif match := re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*)=([0-9]{1,6})(?::([0-9]{1,6}))?", word):
            if request.name:
                raise UsageError(f"{word!r}: jobs were given before as {request.name}=...")
            first, last = int(match[2]), int(match[3] or match[2])
            if not 1 <= first <= last:
                raise UsageError(f"{word!r}: jobs count from 1, as in {match[1]}=1:4")
            request.name, request.jobs = match[1], range(first, last + 1)
            del rest[0]
        elif re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*=.*", word):
            raise UsageError(f"{word!r}: expected NAME=first:last, as in JOB=1:4")
        else:
            break
    if len(rest) < 2:
        raise UsageError("a log file and a command are expected; --help shows how")
    request.log, request.command = rest[0], rest[1:]
    if len(request.jobs) > 1 and request.name not in request.log:
        raise UsageError(f"{len(request.jobs)} jobs would share the log {request.log}; put {request.name} into it")
    return request


def set_memory(_: Request, option: str, text: str) -> None:
    """Checked, so that a recipe that works here does not fail on a cluster for its spelling."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?[KMGT]?B?", text, re.IGNORECASE):
        raise UsageError(f"{option} {text!r}: a size as 8G is expected")


def set_time(_: Request, option: str, text: str) -> None:
    """As `set_memory`."""
    if not re.fullmatch(r"[0-9][0-9:-]*[smhd]?", text):
        raise UsageError(f"{option} {text!r}: a time as 2:00:00 or 2h is expected")


OPTIONS = {
    "--num-threads": lambda r, option, text: setattr(r, "threads", whole_number(option, text, 0)),
    "--gpu": lambda r, option, text: setattr(r, "gpus", whole_number(option, text, 0)),
    "--max-jobs-run": lambda r, option, text: setattr(r, "max_jobs_run", whole_number(option, text, 1)),
    "--mem": set_memory,
    "--time": set_time,
}


def processors() -> int:
    """Processors that this process may use: its affinity, and the share of its control group."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no control group, or no limit ("max")
        pass
    return count


def visible_gpus() -> list[str]:
    """GPUs for jobs, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(i) for i in range(len(re.findall(r"^GPU ", listed.stdout, re.MULTILINE)))]


def quote(word: str) -> str:
    """A word as bash reads it back, on one line as with printf %q."""
    if word.isprintable():
        return shlex.quote(word)
    escaped = "".join(f"\\{c}" if c in "\\'" else c if c.isprintable() else escape(c) for c in word)
    return f"$'{escaped}'"


def escape(character: str) -> str:
    """A character as bash's $'...' writes its bytes."""
    return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogateescape"))


def now() -> str:
    """Local time to the second, with its zone."""
    return datetime.now(timezone.utc).astimezone().isoformat(timespec="seconds")


class Runner:
    """Starts jobs as processors and GPUs become free, and waits for all of them."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.interrupted = False
        self.deadline: float | None = None
        self.next_progress = 0.0
        self.running: list[Job] = []
        self.failed: list[Job] = []
        self.free_gpus = visible_gpus() if request.gpus else []
        self.threads = request.threads or processors()
        if request.gpus > len(self.free_gpus):
            raise UsageError(f"--gpu {request.gpus}: {len(self.free_gpus)} GPUs are visible on this machine")
        at_once = max(1, processors() // self.threads)
        if request.gpus:
            # Jobs on GPUs wait for those; their processors mostly feed them.
            at_once = len(self.free_gpus) // request.gpus
        self.at_once = min(at_once, request.max_jobs_run or at_once)

    def run(self) -> int:
        """All jobs; returns the exit status of the whole."""
        for number in signals_to_catch():
            signal.signal(number, self.interrupt)
        waiting = list(self.request.jobs)
        try:
            while self.running or (waiting and not self.interrupted):
                while waiting and len(self.running) < self.at_once and not self.interrupted:
                    self.start(waiting.pop(0))
                time.sleep(0.02)
                if self.interrupted:
                    self.stop()
                for job in [job for job in self.running if job.process.poll() is not None]:
                    self.finish(job)
                self.show_progress()
        finally:
            self.signal_all(signal.SIGTERM)  # none is left, unless a log could not be opened
            for job in self.running:
                job.process.wait()
        return self.summary(unstarted=len(waiting))

    def show_progress(self) -> None:
        """On a terminal, the last line that a lone job wrote; it is overwritten in place."""
        if not sys.stderr.isatty() or time.monotonic() < self.next_progress:
            return
        self.next_progress = time.monotonic() + 0.5
        line = last_lines(self.running[0].log)[-1] if len(self.running) == 1 else ""
        width = max(0, shutil.get_terminal_size().columns - 1)
        print(f"\r{line[:width]}\033[K", end="", file=sys.stderr, flush=True)

    def interrupt(self, *_: object) -> None:
        """Only sets a flag; the loop does the rest."""
        self.interrupted = True

    def stop(self) -> None:
        """Forwards TERM to the jobs' process groups once, and KILL when their time is over."""
        if self.deadline is None:
            self.deadline = time.monotonic() + GRACE_SECONDS
            if self.running:
                say(f"interrupted: waiting for {len(self.running)} jobs to stop, at most {GRACE_SECONDS:.0f} s")
            self.signal_all(signal.SIGTERM)
        elif time.monotonic() > self.deadline:
            self.signal_all(signal.SIGKILL)

    def signal_all(self, number: int) -> None:
        for job in self.running:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it ended in the meantime
                os.killpg(job.process.pid, number)

    def start(self, number: int) -> None:
        """Opens the job's log, writes its head and starts the command."""
        request = self.request
        log = Path(request.of_job(number, request.log))
        command = [request.of_job(number, word) for word in request.command]
        gpus = [self.free_gpus.pop(0) for _ in range(request.gpus)]
        environment = dict(os.environ, CUDA_VISIBLE_DEVICES=",".join(gpus))
        for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR"):
            environment[f"{library}_NUM_THREADS"] = str(self.threads)
        log.parent.mkdir(parents=True, exist_ok=True)
        output = open(log, "ab", buffering=0)  # noqa: SIM115 (closed by finish)
        output.write(
            f"# host {socket.gethostname()}, {self.threads} threads, GPU {','.join(gpus) or 'none'}\n"
            f"# Started at {now()}\n"
            f"# command: {' '.join(map(quote, command))}\n".encode(errors="surrogateescape")
        )
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,  # a process group of its own: signals reach the job's children too
            )
        except OSError as error:
            output.write(f"{command[0]}: {error.strerror}\n".encode(errors="surrogateescape"))
            process = subprocess.Popen(["sh", "-c", "exit 127"])
        self.running.append(Job(number, log, process, output, gpus))

    def finish(self, job: Job) -> None:
        """Writes the end of the job's log and gives its GPUs back."""
        code = job.process.returncode
        job.status = code if code >= 0 else 128 - code
        seconds = time.monotonic() - job.started
        end = f"# Ended at {now()} with exit status {job.status}, duration {seconds:.1f} s\n"
        try:
            with open(job.log, "rb") as body:
                body.seek(-1, os.SEEK_END)
                complete = body.read(1) == b"\n"
            job.output.write((b"" if complete else b"\n") + end.encode())
        except OSError as error:  # the job's own status counts, whatever became of its log
            say(f"{job.log}: {error.strerror}")
        job.output.close()
        self.free_gpus += job.gpus
        self.running.remove(job)
        if job.status:
            self.failed.append(job)

    def summary(self, unstarted: int) -> int:
        """Names what failed and returns the exit status."""
        failed = sorted(self.failed, key=lambda job: job.number)
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        if self.interrupted:
            say(f"interrupted: {len(failed)} jobs stopped, {unstarted} not started; run the same command again")
            return INTERRUPTED
        if not failed:
            return 0
        numbers = ", ".join(f"{job.number} (status {job.status})" for job in failed[:20])
        more = f" and {len(failed) - 20} more" if len(failed) > 20 else ""
        say(f"{len(failed)} of {len(self.request.jobs)} jobs failed: {numbers}{more}; log: {self.request.log}")
        for job in failed[:TAIL_LOGS]:
            print(f"--- {job.log}", *last_lines(job.log), sep="\n    ", file=sys.stderr)
        statuses = {job.status for job in failed}
        return statuses.pop() if statuses in ({WRONG_USAGE}, {INTERRUPTED}) else 1


def signals_to_catch() -> list[int]:
    """All but a hang-up that whoever started us (nohup) ignores on purpose."""
    return [n for n in SIGNALS if not (n == signal.SIGHUP and signal.getsignal(n) == signal.SIG_IGN)]


def last_lines(log: Path) -> list[str]:
    """The last lines that a job wrote, each as a terminal would show it."""
    with open(log, "rb") as handle:
        handle.seek(max(0, log.stat().st_size - 65536))
        text = handle.read().decode(errors="replace")
    attempt = text.rpartition("\n# command: ")[2] or text
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in attempt.split("\n")[1:]]
    lines = [line[:TAIL_WIDTH] for line in lines if line.strip() and not line.startswith("# Ended at ")]
    return lines[-TAIL_LINES:] or ["(no output)"]


def say(text: str) -> None:
    """One line on standard error."""
    print(f"local.py: {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Parses, runs, and returns the exit status."""
    try:
        return Runner(parse(sys.argv[1:])).run()
    except UsageError as error:
        say(str(error))
        return WRONG_USAGE
    except OSError as error:
        say(f"{error.filename}: {error.strerror}; a log must be writable")
        return 1


if __name__ == "__main__":
    sys.exit(main())
