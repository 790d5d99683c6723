"""One run per experiment directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from speechlvm.errors import UserError
from speechlvm.files import disk_errors


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory; the kernel releases the lock of a process that dies, so none is ever stale.

    Raises:
        UserError: another run holds it (host, process and start are named).
    """
    path = Path(directory) / "lock"
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (closed below; closing releases the lock)
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.seek(0)
            owner = stream.read().strip() or "an unknown process"
            raise UserError(f"{directory}: in use by {owner}; wait for it or stop it") from error
        stream.truncate(0)
        stream.write(f"{socket.gethostname()} process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        stream.flush()
        yield
