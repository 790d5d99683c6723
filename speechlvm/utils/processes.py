"""Processes: graceful stop on signals, and exit when the parent process dies. Does not import torch."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
# Tensors are passed between processes through a socket, pymp-xxxxxxxx/listener-xxxxxxxx in the temporary folder. Its
# path can have 107 bytes; with a longer one, the receiving process would wait forever.
SOCKET_FOLDER_BYTES = 75
_PR_SET_PDEATHSIG = 1


@contextmanager
def _handled(handler: Any) -> Iterator[None]:
    previous = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """List of the stop signals received: the handler only appends them; long-running loops check the list.

    A handler that did more, such as saving, could run in the middle of any other operation.
    """
    received: list[int] = []
    with _handled(lambda number, _: received.append(number)):
        yield received


def default_signals() -> AbstractContextManager[None]:
    """Let stop signals end the process at once, as there is nothing to save yet."""
    return _handled(signal.SIG_DFL)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies (Linux only).

    An orphan would keep running and hold the lock of the experiment.

    Args:
        parent: id of the process that started this one.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call
            os.kill(os.getpid(), signal.SIGKILL)


def follow_parent(*_: object) -> None:
    """Set up a loader process: it ignores stop signals, which its parent handles, and dies with its parent."""
    if len(os.fsencode(tempfile.gettempdir())) > SOCKET_FOLDER_BYTES:
        tempfile.tempdir = "/tmp"
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() == parent.pid:  # not of a fork server
        die_with(parent.pid)


def is_launched() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1
