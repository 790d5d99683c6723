"""Entries of wav.scp and segments: files, commands that output audio, parts of recordings."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from speechlvm.data.headers import COPY_AGAIN
from speechlvm.data.kaldi.tables import TO_THE_END, is_pipe
from speechlvm.utils.errors import UserError

ALLOW = "give --allow_pipes if you trust every command in it, or write the path of an audio file"


@dataclass(frozen=True)
class Pipe:
    """A command of wav.scp, including the '|' at its end; only `local_file` runs it."""

    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def command(self) -> str:
        """The command for bash."""
        return self.text.rstrip("|").strip()


def entry(text: str) -> Path | Pipe:
    """The second column of wav.scp."""
    return Pipe(text) if is_pipe(text) else Path(text)


@dataclass(frozen=True)
class Excerpt:
    """A line of segments: the utterance is the part [start_seconds, end_seconds) of a recording; None: to its end."""

    recording: str
    start_seconds: Decimal
    end_seconds: Decimal | None

    @classmethod
    def parse(cls, text: str) -> Excerpt:
        """Parses the columns after the utterance."""
        recording, start, end = text.split()
        return cls(recording, Decimal(start), None if end == TO_THE_END else Decimal(end))

    def __str__(self) -> str:
        end = TO_THE_END if self.end_seconds is None else format(self.end_seconds, "f")
        return f"{self.recording} {format(self.start_seconds, 'f')} {end}"

    def bounds(self, rate_hz: int, num_samples: int) -> tuple[int, int]:
        """First sample and end, rounded, in a recording of `num_samples`."""
        stop = num_samples if self.end_seconds is None else round(self.end_seconds * rate_hz)
        return round(self.start_seconds * rate_hz), stop


@contextmanager
def local_file(source: Path | Pipe) -> Iterator[Path]:
    """The audio file of an entry of wav.scp, or the output of a command, once it has exited with status 0.

    Raises:
        UserError: the command failed. Errors in the block name the command instead of the temporary file.
    """
    if isinstance(source, Path):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="speechlvm.") as directory:
        path = Path(directory) / "audio"
        with open(path, "wb") as output:
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", source.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
                check=False,
            )
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            reason = f", saying: {said[-1]}" if said else ""
            failed = f"'{source}' exited with status {done.returncode}{reason}"
            raise UserError(f"{failed}; its output is not used; fix the command")
        try:
            yield path
        except UserError as error:
            # advice for files does not apply to the output of a command
            said = re.sub("convert it, for example with: .*", "let the command convert it", str(error))
            said = said.replace(COPY_AGAIN, "fix the command").replace(str(path), f"output of '{source}'")
            raise type(error)(said) from error
