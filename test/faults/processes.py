"""Commands that run with all that they start under a mark, so that every process of theirs can be found and killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

MARK = "SPEECHLVM_TEST_MARK"
POLL_SECONDS = 0.02
PATIENCE_SECONDS = 600  # for a stage, on a machine with other work


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
                with contextlib.suppress(OSError), open(f"/proc/{entry}/environ", "rb") as stream:
                    if needle in stream.read():  # empty for those that have ended
                        found.append(int(entry))
        return found

    def held(self) -> int | None:
        """The process that stands still, as after SIGSTOP, if one does."""
        for process in self.processes():
            with (
                contextlib.suppress(OSError),
                open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as stream,
            ):
                if stream.read().rpartition(")")[2].split()[0] == "T":
                    return process
        return None

    def wait_until_held(self) -> int | None:
        """The process that stands still; None if the command has ended before."""
        while self.process.poll() is None:
            if held := self.held():
                return held
            time.sleep(POLL_SECONDS)
        return None

    def wait(self) -> int:
        """The exit status, when it and all that it has started have ended."""
        status = self.process.wait(PATIENCE_SECONDS)
        self.kill_all()
        return status

    def kill_all(self) -> None:
        """SIGKILL to every process, also to those that start meanwhile."""
        while processes := self.processes():
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        self.process.wait()

    def text(self) -> str:
        """What it has printed."""
        return self.output.read_text(encoding="utf-8", errors="replace")
