"""Training curves in TensorBoard's format."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from speechlvm.utils.files import disk_errors


class Scalars:
    """Writes scalars over steps.

    Args:
        directory: directory of the event files.
        first_step: TensorBoard hides points of earlier runs from this step on; 0: no earlier runs.

    Raises:
        UserError: from any method, if the disk is full or the directory cannot be written.
    """

    def __init__(self, directory: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.directory = directory
        # the thread of the writer passes errors to the next call; hide its traceback
        self._hook, threading.excepthook = threading.excepthook, _ignore_system_errors
        with disk_errors(directory):
            self._writer = SummaryWriter(directory, purge_step=first_step or None)

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Add one point to each curve."""
        with disk_errors(self.directory):
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the event files."""
        try:
            with disk_errors(self.directory):
                self._writer.close()
        finally:
            threading.excepthook = self._hook


def _ignore_system_errors(arguments: threading.ExceptHookArgs) -> None:
    if not issubclass(arguments.exc_type, OSError):
        sys.excepthook(*arguments[:3])
