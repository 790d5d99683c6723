"""One attempt of a job: header and footer of its log, its environment, and its process group."""

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from jobrunner.report import say


class Attempt:
    """The command in its own process group, so that signals reach its children, too; and its log.

    Args:
        command: program and arguments.
        log: log file to append to.
        environment: environment of the command.
        machine: where it runs and what it may use, for the header of the log.
        starter: program to run instead of the command, which starts it somewhere else.

    Raises:
        OSError: the log cannot be written.
    """

    def __init__(
        self, command: list[str], log: Path, environment: dict[str, str], machine: str, starter: list[str] | None = None
    ) -> None:
        self.log = log
        self.started = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        self.output = open(log, "ab", buffering=0)  # noqa: SIM115 (closed by finish)
        self.write(
            f"# host {socket.gethostname()}, {machine}\n"
            f"# Started at {now()}\n"
            f"# command: {' '.join(map(quote, command))}\n"
        )
        try:
            self.process = start(starter or command, environment, self.output)
        except OSError as error:
            self.write(f"{(starter or command)[0]}: {error.strerror}\n")
            self.process = subprocess.Popen(["sh", "-c", "exit 127"])

    def write(self, text: str) -> None:
        """Appends to the log."""
        data = text.encode(errors="surrogateescape")
        try:
            self.output.write(data)
        except OSError as error:
            free = shutil.disk_usage(self.log.parent).free
            reason = f"{error.strerror}; {len(data)} bytes are needed and {free} are free"
            raise OSError(error.errno, reason, str(self.log)) from error

    def signal(self, number: int) -> None:
        """Sends a signal to the command and its children."""
        signal_group(self.process, number)

    def finish(self) -> int:
        """Writes the footer of the log; returns the exit status like a shell."""
        status = exit_status(self.process.returncode)
        end = f"# Ended at {now()} with exit status {status}, duration {time.monotonic() - self.started:.1f} s\n"
        try:
            with open(self.log, "rb") as body:
                body.seek(-1, os.SEEK_END)
                complete = body.read(1) == b"\n"
            self.write(end if complete else "\n" + end)
        except OSError as error:  # the status of the job counts even if its log is lost
            say(f"{self.log}: {error.strerror}")
        self.output.close()
        return status


def start(command: list[str], environment: dict[str, str], output: BinaryIO | None) -> subprocess.Popen:
    """Starts a command in its own process group, without input. It stays in the session, by which PBS tracks its jobs.

    Raises:
        OSError: no such program.
    """
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, preexec_fn=os.setpgrp
    )


def signal_group(process: subprocess.Popen, number: int) -> None:
    """Sends a signal to a process of `start` and its children, if it has not ended in the meantime."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def exit_status(code: int) -> int:
    """Converts a return code of `subprocess` to the exit status in a shell."""
    return code if code >= 0 else 128 - code


def thread_variables(threads: int) -> dict[str, str]:
    """Environment variables that limit the number of threads of a job."""
    return {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")}


def processors() -> int:
    """Number of processors that this process may use, by its affinity and control group."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no control group, or no limit ("max")
        pass
    return count


def quote(word: str) -> str:
    """A word quoted for bash, on one line, like printf %q."""
    if word.isprintable():
        return shlex.quote(word)
    escaped = "".join(f"\\{c}" if c in "\\'" else c if c.isprintable() else _escape(c) for c in word)
    return f"$'{escaped}'"


def _escape(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogateescape"))


def now() -> str:
    """Local time to the second, with time zone."""
    return datetime.now(UTC).astimezone().isoformat(timespec="seconds")
