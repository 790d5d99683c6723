"""Reading the recordings in wav.scp and segments: files, output of commands, parts of recordings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from speechlvm.data.kaldi.scp import ALLOW, Pipe, local_file
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import version_of

if TYPE_CHECKING:
    import numpy as np

    from speechlvm.data.kaldi.directory import DataDirectory

VALIDATE = "run utils/validate_data_dir.sh"


class Recordings:
    """The audio of the utterances of a data directory.

    Args:
        data: the directory's contents.
        directory: its path, for messages.
        allow_pipes: run the commands in wav.scp.

    Raises:
        UserError: wav.scp contains commands, which are not allowed.
    """

    def __init__(self, data: DataDirectory, directory: Path, allow_pipes: bool) -> None:
        self._data = data
        self._last: tuple[str, int, np.ndarray] | None = None
        for recording, source in sorted(data.wav.items()):
            if isinstance(source, Pipe) and not allow_pipes:
                raise UserError(f"{directory}/wav.scp: {recording}: '{source}' is a command; {ALLOW}")

    @property
    def utterances(self) -> list[str]:
        """Sorted so that the parts of a recording are consecutive."""
        return sorted(self._data.utterances, key=lambda utterance: (self._recording(utterance), utterance))

    def _recording(self, utterance: str) -> str:
        return self._data.segments[utterance].recording if self._data.segments else utterance

    def rate_hz(self) -> int:
        """Sampling rate of the first recording."""
        from speechlvm.data.audio import audio_info

        with local_file(self._data.wav[min(self._data.wav)]) as path:
            return audio_info(path).rate_hz

    def stamps(self) -> list[list]:
        """What the samples of each utterance depend on: path, size and time of a file, or a command; and the part."""
        return [
            [
                utterance,
                *_stamp(self._data.wav[self._recording(utterance)]),
                *([str(self._data.segments[utterance])] if self._data.segments else []),
            ]
            for utterance in self._data.utterances
        ]

    def blocks(self, utterance: str, rate_hz: int, block_frames: int) -> Iterator[np.ndarray]:
        """Samples of an utterance, int16, in consecutive blocks of `block_frames`; the last one may be shorter.

        Raises:
            UserError: see `speechlvm.data.audio`; or a part ends after its recording.
        """
        from speechlvm.data.audio import audio_blocks

        source = self._data.wav[self._recording(utterance)]
        if self._data.segments:
            samples = self._excerpt(utterance, rate_hz)
            yield from (samples[start : start + block_frames] for start in range(0, len(samples), block_frames))
            return
        with local_file(source) as path:
            yield from audio_blocks(path, rate_hz, block_frames, allow_streamed=_is_complete(source))

    def _excerpt(self, utterance: str, rate_hz: int) -> np.ndarray:
        from speechlvm.data.audio import read_audio

        excerpt = self._data.segments[utterance]
        if self._last is None or self._last[:2] != (excerpt.recording, rate_hz):
            source = self._data.wav[excerpt.recording]
            with local_file(source) as path:
                samples = read_audio(path, rate_hz, allow_streamed=_is_complete(source))
            self._last = (excerpt.recording, rate_hz, samples)
        samples = self._last[2]
        start, stop = excerpt.bounds(rate_hz, len(samples))
        if not start < stop <= len(samples):
            raise UserError(
                f"{utterance}: samples {start} to {stop} of {excerpt.recording}, which has {len(samples)}; "
                f"{VALIDATE} on the data directory"
            )
        return samples[start:stop]


def _is_complete(source: Path | Pipe) -> bool:
    """Whether audio is complete whatever its header says: a command that exits with status 0 has written everything."""
    return isinstance(source, Pipe)


def _stamp(source: Path | Pipe) -> list:
    return [str(source)] if isinstance(source, Pipe) else [str(source), *file_stamp(source)]


def file_stamp(path: Path) -> list:
    """`version_of` for a file of a data directory.

    Raises:
        UserError: the file is missing.
    """
    try:
        return version_of(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {VALIDATE} on the data directory") from error
