"""Reading and writing Kaldi data directories (file formats: `tables`; checks: `validate`; fixes: `fix`).

Relative paths in ``wav.scp`` start at the current directory, which is the recipe's; this package writes absolute
paths.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from speechlvm.data.kaldi.matrices import read_channels, write_channels
from speechlvm.data.kaldi.scp import Excerpt, Pipe, entry
from speechlvm.data.kaldi.tables import TABLES
from speechlvm.data.kaldi.validate import examine
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import atomic_write, disk_errors


class Interval(NamedTuple):
    """A labelled interval [start_sample, end_sample) of an utterance."""

    start_sample: int
    end_sample: int
    label: str


@dataclass
class DataDirectory:
    """The contents of a data directory; utterances and speakers are in the order of LC_ALL=C.

    Files that the corpus does not have are empty. With `segments`, utterances are parts of recordings, and the keys of
    `wav` are recordings. `phones` and `words` are sorted by start. Only data of vectors have `channels` and `rate_hz`
    (see `matrices`).
    """

    utt2spk: dict[str, str]
    wav: dict[str, Path | Pipe] = field(default_factory=dict)
    num_samples: dict[str, int] = field(default_factory=dict)
    feats: dict[str, str] = field(default_factory=dict)
    num_frames: dict[str, int] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)
    spk2gender: dict[str, str] = field(default_factory=dict)
    spk2height_cm: dict[str, float] = field(default_factory=dict)
    spk2dialect: dict[str, str] = field(default_factory=dict)
    phones: dict[str, list[Interval]] = field(default_factory=dict)
    words: dict[str, list[Interval]] = field(default_factory=dict)
    channels: dict[str, str] = field(default_factory=dict)
    rate_hz: float | None = None
    segments: dict[str, Excerpt] = field(default_factory=dict)

    @property
    def utterances(self) -> list[str]:
        """All utterance ids in order."""
        return sorted_by_bytes(self.utt2spk)

    @property
    def spk2utt(self) -> dict[str, list[str]]:
        """The utterances of each speaker."""
        result: dict[str, list[str]] = {speaker: [] for speaker in sorted_by_bytes(set(self.utt2spk.values()))}
        for utterance in self.utterances:
            result[self.utt2spk[utterance]].append(utterance)
        return result


# The attribute of DataDirectory for each file, and how its values are read.
ATTRIBUTES: dict[str, tuple[str, Callable]] = {
    "utt2spk": ("utt2spk", str),
    "wav.scp": ("wav", entry),
    "segments": ("segments", Excerpt.parse),
    "utt2num_samples": ("num_samples", int),
    "feats.scp": ("feats", str),
    "utt2num_frames": ("num_frames", int),
    "text": ("text", str),
    "spk2gender": ("spk2gender", str),
    "spk2height": ("spk2height_cm", float),
    "spk2dialect": ("spk2dialect", str),
    "phones": ("phones", str),
    "words": ("words", str),
}


def load_data_dir(path: str | Path) -> DataDirectory:
    """Reads a data directory; audio files are not opened, and commands in wav.scp are not run.

    Raises:
        UserError: the first error that `validate` finds, and the number of errors.
    """
    files = examine(Path(path))
    if errors := files.errors:
        rest = f"{len(errors) - 1} more; utils/validate_data_dir.sh {path} lists all"
        raise UserError(errors[0] + (f" (and {rest})" if len(errors) > 1 else ""))
    values: dict[str, dict] = {}
    for name, (attribute, convert) in ATTRIBUTES.items():
        column = values.setdefault(attribute, {})
        for line in files[name].lines if name in files else ():
            if TABLES[name].intervals:
                start, end, label = line.columns
                column.setdefault(line.key, []).append(Interval(int(start), int(end), label))
            else:
                column[line.key] = convert(line.rest)
    channels, rate_hz = read_channels(Path(path)) if files.of_vectors else ({}, None)
    return DataDirectory(**values, channels=channels, rate_hz=rate_hz)


def write_data_dir(data: DataDirectory, path: str | Path) -> None:
    """Writes a data directory, completely or not at all; an existing one is replaced.

    Raises:
        UserError: it would not be valid (audio files are not opened).
    """
    path = Path(path)
    # names that the next run removes if this process is killed
    temporary, old = (path.with_name(f".{path.name}{what}.{os.getpid()}.tmp") for what in ("", ".old"))
    with disk_errors(path):
        temporary.mkdir(parents=True)
    try:
        for name, lines in _format(data).items():
            write_lines(temporary / name, lines)
        if data.channels:
            write_channels(temporary, data.channels, data.rate_hz)
        errors = examine(temporary).errors
        if errors:
            raise UserError(errors[0].replace(str(temporary), str(path)))
        if path.exists():
            path.rename(old)
        try:
            temporary.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def sorted_by_bytes(names) -> list[str]:
    """Sorted as LC_ALL=C sorts."""
    return sorted(names, key=str.encode)


def write_lines(path: Path, lines: list[str]) -> None:
    """Writes a file of lines, completely or not at all."""
    with atomic_write(path) as file:
        file.writelines(f"{line}\n" for line in lines)


def _format(data: DataDirectory) -> dict[str, list[str]]:
    """The lines of each file that is not empty."""
    files = {"spk2utt": [f"{speaker} {' '.join(utterances)}" for speaker, utterances in data.spk2utt.items()]}
    for name, (attribute, _) in ATTRIBUTES.items():
        column = getattr(data, attribute)
        if not column:
            continue
        if TABLES[name].intervals:
            files[name] = [
                f"{key} {start} {end} {label}"
                for key in sorted_by_bytes(column)
                for start, end, label in sorted(column[key])
            ]
        elif name == "spk2height":
            files[name] = [f"{key} {column[key]:g}" for key in sorted_by_bytes(column)]
        else:
            files[name] = [f"{key} {column[key]}" for key in sorted_by_bytes(column)]
    return files
