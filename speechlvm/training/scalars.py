"""Curves for people to look at, in TensorBoard's format."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from speechlvm.utils.files import disk_errors


class Scalars:
    """Writes curves; a full disk is one line.

    Args:
        directory: of the event files.
        first_step: those of an earlier run from this step on are not shown; 0: there are none.

    Raises:
        UserError: the disk is full, or the place cannot be written (of all methods).
    """

    def __init__(self, directory: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.directory = directory
        # its thread hands an error on to the next call, and need not say it by itself
        self._hook, threading.excepthook = threading.excepthook, _all_but_system_errors
        with disk_errors(directory):
            self._writer = SummaryWriter(directory, purge_step=first_step or None)

    def add(self, values: Mapping[str, float], step: int) -> None:
        """One point of each curve."""
        with disk_errors(self.directory):
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        try:
            with disk_errors(self.directory):
                self._writer.close()
        finally:
            threading.excepthook = self._hook


def _all_but_system_errors(arguments: threading.ExceptHookArgs) -> None:
    if not issubclass(arguments.exc_type, OSError):
        sys.excepthook(*arguments[:3])
