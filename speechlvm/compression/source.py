"""What is compressed: utterances of 16-bit PCM, from a dump or audio files, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speechlvm.data.audio import audio_info, check_length, read_audio
from speechlvm.data.dumps import open_dump
from speechlvm.data.dumps.pcm import PCMDump
from speechlvm.data.kaldi.folder import SUFFIXES
from speechlvm.data.kaldi.tables import unsafe_id
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import files_below


@dataclass(frozen=True)
class Source:
    """Utterances.

    Attributes:
        rate_hz: sampling rate of all.
        frames: utterance -> samples.
        read: utterance -> (T,) int16.
    """

    rate_hz: int
    frames: dict[str, int]
    read: Callable[[str], np.ndarray]

    @property
    def longest_first(self) -> list[str]:
        """The order in which utterances are in a file, and are decoded: those side by side end together."""
        return sorted(self.frames, key=lambda utterance: (-self.frames[utterance], utterance))


@dataclass(frozen=True)
class Coded:
    """An utterance that is coded, or what several cost together.

    Attributes:
        frames: samples.
        pcm_crc: `container.pcm_crc`.
        stream: empty if the utterance is in the stream of the one before it in the file, behind that.
        model_bits: negative log-likelihood, or bound, in bits.
        table_bits: the same by the integer tables, at the latents that were chosen: what streams take but for their
            ends.
        initial_bits: of the stream that nothing has been coded with; only bits back needs any.
    """

    frames: int
    pcm_crc: int
    stream: bytes
    model_bits: float
    table_bits: float
    initial_bits: int = 0


def pad(rows: Sequence[np.ndarray], lanes: int, multiple: int) -> np.ndarray:
    """Utterances as (lanes, T) int16, zeros behind them and in rows that are not needed; T is a multiple."""
    longest = max(map(len, rows))
    pcm = np.zeros((lanes, -(-longest // multiple) * multiple), np.int16)
    for padded, row in zip(pcm, rows, strict=False):
        padded[: len(row)] = row
    return pcm


def source_of_dump(directory: Path, count: int | None = None) -> Source:
    """Utterances of a dump: all, or so many, evenly spread over the sorted ids.

    Raises:
        UserError: it holds no audio, or is damaged.
    """
    dump = open_dump(directory)
    if not isinstance(dump, PCMDump):
        raise UserError(f"{directory}: a dump of vectors; expected one of audio")
    names = sorted(dump.records)
    count = min(count or len(names), len(names))
    chosen = [names[place * len(names) // count] for place in range(count)]
    return Source(dump.rate_hz, {name: dump.records[name].frames for name in chosen}, dump.read)


def source_of_files(paths: Sequence[Path]) -> Source:
    """16-bit mono audio files, or all those in directories, named after the files.

    Raises:
        UserError: one cannot be used, or two have one name.
    """
    files: dict[str, Path] = {}
    for path in paths:
        found = [file for file in files_below(path) if file.suffix.lower() in SUFFIXES] if path.is_dir() else [path]
        for file in found:
            if reason := unsafe_id(file.stem):
                raise UserError(f"{file}: {reason}")
            if file.stem in files:
                raise UserError(f"{file}: has the name of {files[file.stem]}; rename one, or compress them apart")
            files[file.stem] = file
    if not files:
        raise UserError(f"{', '.join(map(str, paths))}: no {', '.join(SUFFIXES)} files")
    frames, rate_hz = {}, None
    for name, file in files.items():
        info = audio_info(file)
        check_length(info)
        rate_hz = rate_hz or info.rate_hz
        frames[name] = info.num_samples
    return Source(rate_hz, frames, lambda name: read_audio(files[name], rate_hz))
