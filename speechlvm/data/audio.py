"""Reading 16-bit mono PCM from NIST SPHERE, RIFF WAVE and FLAC files, and writing RIFF WAVE.

Likelihoods are of exact sample values, so nothing is converted here: a file that is not 16-bit, mono and of the
expected rate is refused with the reason. Headers are checked (`speechlvm.data.headers`). FLAC is decoded by
libsndfile in blocks, and the decoded samples are compared with the MD5 sum of the stream.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from speechlvm.data.headers import (
    COPY_AGAIN,
    WAVE_PCM,
    AudioInfo,
    by_ffmpeg,
    check_flac_md5,
    conversion,
    open_regular,
    read_header,
    truncated,
)
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import atomic_write

if TYPE_CHECKING:
    from speechlvm.data.log import Log

BLOCK_FRAMES = 1 << 16
MOST_FRAMES = (2**32 - 1 - 36) // 2  # of 16-bit mono RIFF WAVE
ODD = "audio files have malformed headers that other programs accept"


class UnknownLength(UserError):
    """A header without the number of samples: a truncated file looks like a complete one."""


def audio_info(path: str | Path) -> AudioInfo:
    """Reads the header of an audio file and checks it against the size of the file.

    Raises:
        UserError: the file is missing, not a regular readable file, empty, not audio, truncated or without samples.
    """
    path = Path(path)
    with open_regular(path) as file:
        return read_header(path, file)


def check_length(info: AudioInfo) -> None:
    """Refuses a header without the number of samples.

    Raises:
        UnknownLength: the message says what the header contains, what was found and what to do.
    """
    if info.placeholder is None:
        return
    said, found = f"{info.placeholder} samples", info.num_samples
    remedy = conversion(info.path, "", input_options="--ignore-length" if info.container == "wav" else "")
    if info.in_blocks:
        said, found = f"{info.placeholder} bytes", info.data_bytes
        remedy = by_ffmpeg(info.path, "-ignore_length 1")
    raise unknown_length(info.path, f"header says {said}{f', found {found}' if found else ''}", remedy)


def unknown_length(path: Path, found: str, remedy: str) -> UnknownLength:
    """The error for a file whose header does not give its length."""
    return UnknownLength(
        f"{path}: {found}, as after writing to a pipe; a truncated file looks the same; if it is complete, {remedy}"
    )


def log_oddities(info: AudioInfo, log: Log, name: str = "") -> None:
    """Logs the oddities of a file, if it has any, by name or else by path."""
    if info.oddities:
        log.tolerate(ODD, f"{name or info.path} ({', '.join(info.oddities)})")


def describe(info: AudioInfo) -> str:
    """The sample format of a file, in words."""
    words = (f"{info.bits}-bit" if info.bits else "", "" if info.encoding == "pcm" else info.encoding)
    return " ".join(filter(None, (*words, "(in 4 bytes)" if info.in_four_bytes else "")))


def check_format(info: AudioInfo, rate_hz: int, *, allow_streamed: bool = False) -> None:
    """Requires 16-bit mono PCM at `rate_hz` and, unless `allow_streamed`, a known length.

    Raises:
        UserError: the message names the property, what was found and what to do.
    """
    if not allow_streamed:
        check_length(info)
    if info.encoding == "float":
        raise UserError(f"{info.path}: {_describe_float(info)}; {conversion(info.path, '-b 16 -e signed-integer')}")
    if info.encoding != "pcm" or info.bits != 16:
        remedy = by_ffmpeg(info.path) if info.in_blocks else conversion(info.path, "-b 16 -e signed-integer")
        if info.in_four_bytes:
            remedy = "few programs read this format correctly: convert it with egs/wavdir --bits 16"
        raise UserError(
            f"{info.path}: {describe(info)} samples; expected 16-bit PCM, as bits per frame of other codings cannot be "
            f"compared; {remedy}"
        )
    if info.channels != 1:
        raise UserError(
            f"{info.path}: {info.channels} channels; expected 1, as channels are never summed; "
            + conversion(info.path, "", "remix 1")
        )
    if info.rate_hz != rate_hz:
        raise UserError(
            f"{info.path}: sampling rate {info.rate_hz} Hz; expected {rate_hz} Hz; "
            + conversion(info.path, f"-r {rate_hz}")
        )


def read_audio(path: str | Path, rate_hz: int = 16000, *, allow_streamed: bool = False) -> np.ndarray:
    """Reads all samples of a 16-bit mono file.

    Args:
        path: NIST SPHERE (uncompressed), RIFF WAVE or FLAC.
        rate_hz: expected sampling rate.
        allow_streamed: as for `audio_blocks`.

    Returns:
        int16 array (num_samples,).

    Raises:
        UserError: see `audio_info` and `check_format`; also if FLAC data does not match its header.
    """
    blocks = list(audio_blocks(path, rate_hz, None, allow_streamed=allow_streamed))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def audio_blocks(
    path: str | Path, rate_hz: int, block_frames: int | None, *, allow_streamed: bool = False
) -> Iterator[np.ndarray]:
    """Reads a 16-bit mono file in consecutive blocks, so that long files need not fit in memory.

    Args:
        path: as for `read_audio`.
        rate_hz: expected sampling rate.
        block_frames: samples per block; the last one may be shorter. None: whatever is fastest for the whole file.
        allow_streamed: treat files as complete whose headers have a placeholder for the number of samples.

    Raises:
        UserError: as `read_audio`; errors that only show at the end of the file are raised after the last block.
    """
    path = Path(path)
    with open_regular(path) as file:
        info = read_header(path, file)
        check_format(info, rate_hz, allow_streamed=allow_streamed)
        blocks = _flac_blocks if info.container == "flac" else _pcm_blocks
        yield from blocks(info, file, block_frames)


def _pcm_blocks(info: AudioInfo, file: BinaryIO, block_frames: int | None) -> Iterator[np.ndarray]:
    file.seek(info.data_offset)
    found, extrema, swapped_extrema = 0, [], []
    while found < info.num_samples:
        count = min(block_frames or info.num_samples, info.num_samples - found)
        samples = np.fromfile(file, dtype=">i2" if info.big_endian else "<i2", count=count)
        found += len(samples)
        if len(samples) < count:
            raise truncated(info.path, info.num_samples, found)
        if info.extrema is not None:
            extrema += [samples.min(), samples.max()]
            swapped_extrema += [(swapped := samples.byteswap()).min(), swapped.max()]
        yield samples.astype(np.int16, copy=False)
    # Extrema that agree in neither byte order are common (files cut or scaled after recording) and prove nothing.
    if info.extrema is None or (min(extrema), max(extrema)) == info.extrema:
        return
    if (min(swapped_extrema), max(swapped_extrema)) == info.extrema:
        raise UserError(
            f"{info.path}: samples are in the other byte order than sample_byte_format says "
            f"(sample_min and sample_max agree only with swapped bytes); {COPY_AGAIN}"
        )


def write_wav(path: str | Path, samples: np.ndarray, rate_hz: int) -> None:
    """Writes a 16-bit mono RIFF WAVE file, complete or not at all.

    Args:
        path: the file to write.
        samples: int16 array (num_samples,).
        rate_hz: sampling rate.
    """
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise ValueError(f"expected an int16 array of one dimension, got {samples.dtype} {samples.shape}")
    with atomic_write(Path(path), "wb") as file:
        file.write(wav_header(len(samples), rate_hz) + samples.astype("<i2", copy=False).tobytes())


def wav_header(num_samples: int, rate_hz: int) -> bytes:
    """The 44 bytes before the samples of a 16-bit mono RIFF WAVE file."""
    size = 2 * num_samples
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, WAVE_PCM, 1, rate_hz, 2 * rate_hz, 2, 16, b"data", size),
    )


def _describe_float(info: AudioInfo) -> str:
    """The reason to refuse float samples: one that is not finite, a peak that would clip, or the encoding itself."""
    if info.container != "wav" or info.bits not in (32, 64):
        return f"{info.bits}-bit float samples; expected 16-bit PCM"
    dtype, peak = np.dtype(f"<f{info.bits // 8}"), 0.0
    with open_regular(info.path) as file:
        file.seek(info.data_offset)
        for start in range(0, info.num_samples * info.channels, BLOCK_FRAMES):
            block = np.fromfile(file, dtype, min(BLOCK_FRAMES, info.num_samples * info.channels - start))
            bad = np.flatnonzero(~np.isfinite(block))
            if len(bad):
                return f"sample {(start + int(bad[0])) // info.channels} is {block[bad[0]]}; expected 16-bit PCM"
            peak = max(peak, float(np.abs(block).max(initial=0)))
    if peak > 1:
        return f"{info.bits}-bit float samples that would clip (peak {peak:.3f}); expected 16-bit PCM"
    return f"{info.bits}-bit float samples; expected 16-bit PCM, as only its likelihoods can be compared"


def _flac_blocks(info: AudioInfo, file: BinaryIO, block_frames: int | None) -> Iterator[np.ndarray]:
    import soundfile

    found, digest = 0, hashlib.md5(usedforsecurity=False)
    try:
        with open_decoder(info, file) as decoder:
            while len(
                block := decoder.read(most_frames(info.num_samples, found, block_frames or BLOCK_FRAMES), dtype="int16")
            ):
                found += len(block)
                digest.update(block.astype("<i2", copy=False).tobytes())
                yield block
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise UserError(f"{info.path}: damaged FLAC ({' '.join(str(error).split())}); {COPY_AGAIN}") from None
    if info.num_samples and found != info.num_samples:
        raise truncated(info.path, info.num_samples, found)
    if not found:
        raise UserError(f"{info.path}: no samples; {COPY_AGAIN}, or remove it")
    check_flac_md5(info, file, digest.digest())


class SpliceReader(io.RawIOBase):
    """`head`, then `size` bytes of `file` from `start`, as one file."""

    def __init__(self, head: bytes, file: BinaryIO, start: int, size: int) -> None:
        self._head, self._file, self._start, self._end, self._place = head, file, start, len(head) + size, 0

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Sets the position."""
        place = offset + (0, self._place, self._end)[whence]
        if place >= 0:  # libsndfile also tries negative ones
            self._place = place
        return self._place

    def readinto(self, buffer) -> int:
        """Fills the whole buffer except at the end: libsndfile treats a short read as the end of the file."""
        content = self._head[self._place :][: len(buffer)]
        place = self._place + len(content)
        if (count := min(len(buffer) - len(content), self._end - place)) > 0:
            self._file.seek(self._start + place - len(self._head))
            content += self._file.read(count)
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)


def open_decoder(info: AudioInfo | None, file: BinaryIO) -> Any:
    """Opens libsndfile's decoder, to be read forward in blocks.

    The decoder gets RIFF WAVE with a corrected header, FLAC without the tags around it, and AU with a size of 0 as of
    unknown size. It claims not to be seekable: soundfile would seek after each block, which fails in FLAC without the
    number of samples.

    Args:
        info: the header; None for other containers.
        file: the file.
    """
    import soundfile

    class Forward(soundfile.SoundFile):
        def seekable(self) -> bool:
            return False

    head, start, size = b"", 0, os.fstat(file.fileno()).st_size
    file.seek(0)
    if (begin := file.read(12)).startswith(b".snd") and not any(begin[8:]):
        head, start, size = begin[:8] + b"\xff" * 4, 12, size - 12
    if info is not None and info.container != "sphere":
        start, size = info.data_offset, info.data_bytes
    if info is not None and info.container == "wav":
        head = b"WAVEfmt " + struct.pack("<I", len(info.layout)) + info.layout
        head += b"data" + struct.pack("<I", min(size, 0xFFFFFFFF))
        head = b"RIFF" + struct.pack("<I", min(len(head) + size, 0xFFFFFFFF)) + head
    return Forward(SpliceReader(head, file, start, size))


def most_frames(promised: int, found: int, block_frames: int) -> int:
    """Number of frames to decode next: none beyond the number in the header (0: unknown)."""
    return min(block_frames, promised - found) if promised else block_frames
