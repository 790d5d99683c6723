"""Counts what a process does to files below a directory, and lets something happen at the n-th of these operations.

Operations are opening for writing, each write to the kernel, fsync of files and of directories, rename, unlink and
mkdir: what a crash can fall between.
"""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

ENVIRONMENT = "SPEECHLVM_TEST_FILE_OPERATIONS"  # JSON: directory, number, action, counter
ACTIONS = ("kill", "kill after", "torn", "ENOSPC", "EIO")
_real = {name: getattr(os, name) for name in ("replace", "rename", "fsync", "unlink", "remove", "mkdir", "rmdir")}
_real_open = io.open


class Operations:
    """The operations below `directory`; `happen(name, path)` is called before each, and may raise or not return.

    Args:
        directory: others are not counted.
        number: of the operation, from 1, at which it happens; 0: never.
        action: one of `ACTIONS`; "hold": stop this process until somebody kills it or lets it continue.
        counter: file with the count of several processes; None: count this process's own.
    """

    def __init__(self, directory: Path, number: int, action: str, counter: Path | None = None) -> None:
        self.directory, self.number, self.action, self.counter = os.path.realpath(directory), number, action, counter
        self.count = 0
        self.names: list[str] = []

    def mine(self, path: str | Path | int) -> bool:
        """Whether a path, or an open file's, is to be counted."""
        try:
            name = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.path.abspath(os.fsdecode(path))
        except (OSError, TypeError):
            return False
        return os.path.realpath(os.path.dirname(name)).startswith(self.directory) and not name.endswith(".log")

    def _next(self) -> int:
        if self.counter is None:
            self.count += 1
            return self.count
        with _real_open(self.counter, "a+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.seek(0)
            count = len(stream.read()) + 1
            stream.write(".")
            stream.flush()
        return count

    def perform(self, name: str, path: str | Path | int, operation: Callable, tear: Callable | None = None):
        """Do an operation, unless it is the one."""
        if not self.mine(path):
            return operation()
        self.names.append(name)
        if self._next() != self.number:
            return operation()
        if self.action == "hold":
            os.kill(os.getpid(), signal.SIGSTOP)
            return operation()
        if self.action == "kill after":
            operation()
        elif self.action == "torn" and tear is not None:
            tear()
        elif self.action in ("ENOSPC", "EIO"):
            number = getattr(errno, self.action)
            raise OSError(number, os.strerror(number), path if not isinstance(path, int) else None)
        os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        """Take the place of Python's own functions, in this process."""
        for name in ("unlink", "remove", "mkdir", "rmdir"):
            setattr(os, name, self._of_one(name))
        for name in ("replace", "rename"):
            setattr(os, name, self._of_two(name))
        os.fsync = self._fsync
        import builtins

        builtins.open = io.open = self._open

    def _of_one(self, name: str) -> Callable:
        def call(path, *rest, **named):
            return self.perform(name, path, lambda: _real[name](path, *rest, **named))

        return call

    def _of_two(self, name: str) -> Callable:
        def call(source, target, **named):
            return self.perform(name, target, lambda: _real[name](source, target, **named))

        return call

    def _fsync(self, descriptor) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()

        def tear() -> None:  # what was not synchronised may be lost
            if os.path.isfile(f"/proc/self/fd/{number}"):
                os.ftruncate(number, os.fstat(number).st_size // 2)

        return self.perform("fsync", number, lambda: _real["fsync"](number), tear)

    def _open(self, file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
        arguments = (buffering, encoding, errors, newline, closefd, opener)
        writes = any(letter in mode for letter in "wax")
        if not writes or isinstance(file, int) or opener is not None or buffering != -1 or not self.mine(file):
            return _real_open(file, mode, *arguments)
        raw = self.perform("open", file, lambda: _Raw(self, file, mode.replace("b", "").replace("t", "")))
        if "+" in mode:  # a lock
            stream = io.BufferedRandom(raw)
        else:
            stream = io.BufferedWriter(raw)
        return stream if "b" in mode else io.TextIOWrapper(stream, encoding, errors, newline)


class _Raw(io.FileIO):
    """An unbuffered file whose writes are counted."""

    def __init__(self, operations: Operations, file, mode: str) -> None:
        super().__init__(file, mode)
        self._operations = operations

    def write(self, data) -> int:
        write = super().write
        half = bytes(data)[: len(data) // 2]
        return self._operations.perform("write", self.fileno(), lambda: write(data), lambda: write(half))


def install_from_environment() -> None:
    """As the environment says, if it says anything."""
    text = os.environ.get(ENVIRONMENT)
    if text:
        Operations(**json.loads(text)).install()


def describe(directory: Path, number: int, action: str, counter: Path | None = None) -> str:
    """Value of the variable `ENVIRONMENT`; arguments as of `Operations`."""
    return json.dumps(
        {"directory": str(directory), "number": number, "action": action, "counter": counter and str(counter)}
    )
