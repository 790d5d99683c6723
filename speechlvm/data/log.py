"""Errors and warnings about data: errors stop a preparation; warnings are counted and shown with examples."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Sized
from pathlib import Path

from speechlvm.utils.errors import UserError
from speechlvm.utils.text import counted

NAMED = 5

CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


class Log:
    """Errors, which stop a preparation, and irregularities, which are counted and shown with examples.

    Args:
        max_bad: number of audio files that may be rejected; if there are more, they are errors.

    Attributes:
        errors: messages.
        tolerated: names by kind.
        rejected: the reason for each audio file that cannot be used.
        converted: number of converted recordings, by original format.
    """

    def __init__(self, max_bad: int = 0) -> None:
        self.max_bad = max_bad
        self.errors: list[str] = []
        self.tolerated: dict[str, list[str]] = {}
        self.rejected: dict[str, str] = {}
        self.converted: Counter[str] = Counter()
        self._told: Counter[str] = Counter()

    @property
    def failed(self) -> bool:
        """Whether nothing may be written."""
        return bool(self.errors) or len(self.rejected) > self.max_bad

    def error(self, message: str) -> None:
        """Records an error."""
        self.errors.append(message)

    def reject(self, path: Path, reason: UserError | str) -> None:
        """Records an audio file that cannot be used; the caller leaves it out."""
        self.rejected[shown(path)] = shown(str(reason))

    def tolerate(self, kind: str, name: str) -> None:
        """Counts an irregularity; `kind` is the text of the warning after the count, in plural."""
        self.tolerated.setdefault(kind, []).append(name)

    def add(self, other: Log) -> None:
        """Adds everything in another log."""
        self.errors += other.errors
        self.rejected.update(other.rejected)
        self.converted.update(other.converted)
        for kind, names in other.tolerated.items():
            self.tolerated.setdefault(kind, []).extend(names)

    def report(self) -> None:
        """Prints warnings, each once, then errors.

        Raises:
            UserError: there are errors, or too many audio files were rejected.
        """
        for kind, names in sorted(self.tolerated.items()):
            if new := names[self._told[kind] :]:
                warn(f"{_several(new)}{kind}: {examples(new)}")
            self._told[kind] = len(names)
        if not self.failed:
            if self.rejected:
                kind = f"audio files cannot be used and were left out (--max_bad allows {self.max_bad})"
                warn(f"{_several(self.rejected)}{kind}: {examples(list(self.rejected))}")
            return
        errors = [*self.errors, *self.rejected.values()]
        for error in errors[:-1]:
            print(f"error: {error}", file=sys.stderr)
        more = f" ({len(errors)} errors in total; nothing was written)" if len(errors) > 1 else ""
        if self.max_bad and self.rejected:
            more += f" ({counted(len(self.rejected), 'bad audio files')}, of which --max_bad allows {self.max_bad})"
        raise UserError(errors[-1] + more)


def examples(names: list[str]) -> str:
    """The first few of many names."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _several(names: Sized) -> str:
    """The number of names, for a text in plural; "" for a single one."""
    return f"{len(names)} " if len(names) > 1 else ""


def shown(path: Path | str) -> str:
    """A path (or a message with one) as UTF-8 on one line, whatever its bytes."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return CONTROL.sub(lambda match: ascii(match.group())[1:-1], text)


def warn(message: str) -> None:
    """Prints one line on standard error."""
    print(f"warning: {message}", file=sys.stderr)
