"""Output of runners: progress on a terminal, failed jobs with the last lines of their logs, and the exit status."""

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jobrunner.call import INTERRUPTED, WRONG_USAGE, Call, UsageError

TAIL_LINES, TAIL_LOGS, TAIL_WIDTH = 8, 3, 1000  # error messages are one long line
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@dataclass
class Failure:
    """A failed job: its number, exit status and log, and the reason, if known."""

    job: int
    status: int
    log: Path
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.job} ({self.reason or f'status {self.status}'})"


def summarise(call: Call, failures: list[Failure]) -> int:
    """Lists failed jobs, shows the last lines of the first logs, and returns the exit status of the whole."""
    if not failures:
        return 0
    failures = sorted(failures, key=lambda failure: failure.job)
    named = ", ".join(map(str, failures[:20]))
    more = f" and {len(failures) - 20} more" if len(failures) > 20 else ""
    say(f"{len(failures)} of {len(call.jobs)} jobs failed: {named}{more}; log: {call.log}")
    for failure in failures[:TAIL_LOGS]:
        _print("\n    ".join([f"--- {failure.log}", *last_lines(failure.log)]))
    statuses = {failure.status for failure in failures}
    return statuses.pop() if statuses in ({WRONG_USAGE}, {INTERRUPTED}) else 1


def last_lines(log: Path) -> list[str]:
    """The last lines that a job wrote in its last attempt, as a terminal would show them."""
    try:
        with open(log, "rb") as handle:
            handle.seek(max(0, os.fstat(handle.fileno()).st_size - 65536))
            text = handle.read().decode(errors="replace")
    except OSError as error:
        return [f"(no log: {error.strerror})"]
    _, head, attempt = text.rpartition("\n# command: ")
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in attempt.split("\n")[1 if head else 0 :]]
    lines = [line[:TAIL_WIDTH] for line in lines if line.strip() and not line.startswith("# Ended at ")]
    return lines[-TAIL_LINES:] or ["(no output)"]


def say(text: str) -> None:
    """Prints one line on standard error."""
    clear_progress()
    _print(f"{Path(sys.argv[0]).name}: {text}")


def _print(text: str, end: str = "\n") -> None:
    # The reader may be gone (a pipe after Ctrl-C, a terminal), which must not stop jobs. Python would try to flush the
    # buffer again at exit, and exit with 120.
    with contextlib.suppress(OSError):
        os.write(sys.stderr.fileno(), (text + end).encode(sys.stderr.encoding, "backslashreplace"))


def show_progress(line: Callable[[], str]) -> None:
    """On a terminal, shows a line that is overwritten in place."""
    if sys.stderr.isatty():
        width = max(0, shutil.get_terminal_size().columns - 1)
        _print(f"\r{line()[:width]}\033[K", end="")


def clear_progress() -> None:
    """Clears that line."""
    show_progress(str)


class Interruption:
    """Whether a signal asked the runner to stop. The handler only sets a flag; the runner's loop does the rest."""

    def __init__(self) -> None:
        self.signal: int | None = None  # the first one
        for number in SIGNALS:
            # the parent (nohup, a script in the background) may ignore these on purpose
            if number not in (signal.SIGHUP, signal.SIGINT) or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._ask)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it is ignored, exit statuses are lost

    @property
    def asked(self) -> bool:
        """Whether a signal was received."""
        return self.signal is not None

    def expect_after(self, seconds: int) -> None:
        """Sends ALRM to this process after some seconds; 0 for never."""
        signal.signal(signal.SIGALRM, self._ask)
        signal.alarm(seconds)

    def _ask(self, number: int, _: object) -> None:
        self.signal = self.signal or number


def run_program(main: Callable[[list[str]], int]) -> None:
    """Runs a job runner and exits with its status; wrong usage and files that cannot be written are one line."""
    try:
        status = main(sys.argv[1:])
    except UsageError as error:
        say(str(error))
        status = error.exit_status
    except OSError as error:
        say(f"{error.filename}: {error.strerror}; a log must be writable")
        status = 1
    sys.exit(status)
