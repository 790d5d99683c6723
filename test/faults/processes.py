"""Commands that run with all that they start under a mark, so that every process of theirs can be found and killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

MARK = "SPEECHLVM_TEST_MARK"
POLL_SECONDS = 0.02


class Running:
    """A command that has been started.

    Args:
        command: words.
        cwd: where it runs.
        environment: of it.
        output: file that takes what it prints.
    """

    def __init__(self, command: Sequence[str], cwd: Path, environment: Mapping[str, str], output: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.output = output
        with open(output, "wb") as stream:
            self.process = subprocess.Popen(
                list(command),
                cwd=cwd,
                env={**environment, MARK: self.mark},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def processes(self) -> list[int]:
        """All that live and carry the mark."""
        found = []
        needle = f"{MARK}={self.mark}".encode()
        for entry in os.listdir("/proc"):
            if entry.isdecimal():
                try:
                    with open(f"/proc/{entry}/environ", "rb") as stream:
                        if needle in stream.read():  # empty of those that have ended
                            found.append(int(entry))
                except OSError:
                    continue
        return found

    def held(self) -> bool:
        """Whether a process stands still, as after SIGSTOP."""
        for process in self.processes():
            try:
                with open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as stream:
                    if stream.read().rpartition(")")[2].split()[0] == "T":
                        return True
            except OSError:
                continue
        return False

    def release(self) -> None:
        """Let what stands still go on."""
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> int | None:
        """The exit status; None when the time is over, or `until` holds, before the command has ended."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end and not until():
            time.sleep(min(POLL_SECONDS, max(0.0, end - time.monotonic())))
        return self.process.returncode

    def wait_for_all(self, seconds: float) -> bool:
        """Whether all processes, also those whose parent was killed, end in time."""
        end = time.monotonic() + seconds
        while self.processes() and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
        return not self.processes()

    def kill_all(self) -> None:
        """SIGKILL to every process, also to those that start meanwhile."""
        while processes := self.processes():
            for process in processes:
                _kill(process)
        self.process.wait()

    def kill_runner(self) -> None:
        """SIGKILL to the command's own process group: what it has submitted goes on."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def kill_one(self, generator: random.Random) -> None:
        """SIGKILL to one process that the command has started."""
        others = sorted(set(self.processes()) - {self.process.pid})
        if others:
            _kill(generator.choice(others))

    def text(self) -> str:
        """What it has printed."""
        return self.output.read_text(encoding="utf-8", errors="replace")


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
