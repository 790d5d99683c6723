"""Lock that allows one run at a time in a directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from speechlvm.utils.errors import UserError
from speechlvm.utils.files import disk_errors


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of a directory. The kernel releases the locks of processes that die, so none becomes stale.

    `<directory>/lock` names the holder, and is emptied on release. If it names a process on another host although the
    lock is free, that run was killed, or the file system does not share locks between hosts: this gives a warning.

    Raises:
        UserError: another run holds it (the message gives host, process and start), or the file system has no locks.
    """
    path = Path(directory) / "lock"
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # unbuffered: with a full disk, close() would try to write the buffer again
        stream = open(path, "a+b", buffering=0)  # noqa: SIM115 (closed below; closing releases the lock)
    with stream:
        stream.seek(0)
        owner = stream.read().decode("utf-8", "replace").strip() or "an unknown process"
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{directory}: in use by {owner}; wait for it or stop it") from error
        except OSError as error:  # such as NFS without its lock daemon, or Lustre mounted without flock
            raise UserError(
                f"{path}: this file system has no locks ({error.strerror}), so two runs could write here at once; "
                "mount it with locks, or choose a directory on another one"
            ) from error
        host = socket.gethostname()
        if " process " in owner and not owner.startswith(f"{host} "):
            print(f"warning: {directory}: {owner} did not exit properly; if it still runs, stop it", file=sys.stderr)
        with disk_errors(path):
            _write(stream, f"{host} process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                _write(stream, "")


def _write(stream, text: str) -> None:
    stream.truncate(0)
    stream.write(text.encode())
