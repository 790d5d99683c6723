"""Reading 16-bit mono PCM from NIST SPHERE, RIFF WAVE and FLAC files, and writing RIFF WAVE.

A likelihood is a statement about exact sample values, so nothing is converted here: what is not 16-bit, mono and of
the expected rate is refused with the reason. The format is taken from the first bytes of the file, never from its name
(TIMIT's ``.WAV`` files are SPHERE on the LDC's disc and RIFF in many copies). Headers are never believed: the number of
samples is compared with what the file holds, and nothing is allocated from it.

SPHERE and RIFF headers are read here rather than by libsndfile, because libsndfile mends truncated headers silently.
FLAC is decoded by libsndfile in blocks, and the decoded samples are compared with the MD5 sum of the stream.
"""

import hashlib
import os
import shlex
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from speechlvm.errors import UserError
from speechlvm.files import atomic_write

BLOCK_FRAMES = 1 << 16
MOST_FRAMES = (2**32 - 1 - 36) // 2  # of 16-bit mono RIFF WAVE
MAX_SPHERE_HEADER_BYTES = 1 << 20
WAVE_PCM, WAVE_FLOAT, WAVE_EXTENSIBLE = 0x0001, 0x0003, 0xFFFE
PLACEHOLDER_BYTES = (1 << 31) - 4096  # the least of the sizes that programs write into pipes: sox's
WAVE_ENCODINGS = {WAVE_PCM: "pcm", WAVE_FLOAT: "float", 0x0006: "A-law", 0x0007: "mu-law"}
COPY_AGAIN = "copy the file again from its source"


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says, once it agrees with the size of the file.

    Attributes:
        path: the file.
        container: "sphere", "wav" or "flac".
        encoding: "pcm" (integers), "float", or another name given by the file ("mu-law", "ulaw", ...).
        bits: bits per sample.
        channels: number of channels.
        rate_hz: sampling rate.
        num_samples: samples per channel. FLAC: as the header has it, checked only by decoding.
        data_offset: where the samples begin, in bytes (FLAC: 0).
        big_endian: byte order of the samples.
        extrema: least and greatest sample as the header has them, if it does.
        placeholder: what the header has in place of a number of samples, if it was written into a pipe before that was
            known; `num_samples` is what the file holds then (FLAC: 0).
    """

    path: Path
    container: str
    encoding: str
    bits: int
    channels: int
    rate_hz: int
    num_samples: int
    data_offset: int = 0
    big_endian: bool = False
    extrema: tuple[int, int] | None = None
    placeholder: int | None = None


def audio_info(path: str | Path) -> AudioInfo:
    """Reads the header of an audio file and compares it with the size of the file.

    Raises:
        UserError: the file is missing, not a regular readable file, empty, not audio, truncated or without samples.
    """
    path = Path(path)
    with open_regular(path) as file:
        return _read_header(path, file)


def check_length(info: AudioInfo) -> None:
    """Refuses a header without the number of samples: a file that was cut cannot be told from a whole one.

    Raises:
        UserError: naming what the header says, what was found and what to do.
    """
    if info.placeholder is not None:
        found = f", found {info.num_samples}" if info.num_samples else ""
        ignore = "--ignore-length" if info.container == "wav" else ""
        raise UserError(
            f"{info.path}: header says {info.placeholder} samples{found}, as where a program has written into a pipe; "
            f"expected their number, as a file that was cut looks the same; if it is whole, "
            + _conversion(info.path, "", "", ignore)
        )


def check_format(info: AudioInfo, rate_hz: int, *, allow_streamed: bool = False) -> None:
    """Refuses everything but 16-bit mono PCM at `rate_hz` and, unless allowed, what `check_length` does.

    Raises:
        UserError: naming the property, what was found and what to do.
    """
    if not allow_streamed:
        check_length(info)
    if info.encoding == "float":
        raise UserError(f"{info.path}: {_describe_float(info)}; {_conversion(info.path, '-b 16 -e signed-integer')}")
    if info.encoding != "pcm" or info.bits != 16:
        kind = f"{info.bits}-bit" if info.encoding == "pcm" else f"{info.bits}-bit {info.encoding}"
        raise UserError(
            f"{info.path}: {kind} samples; expected 16-bit PCM, as bits per frame of other codings cannot be compared; "
            + _conversion(info.path, "-b 16 -e signed-integer")
        )
    if info.channels != 1:
        raise UserError(
            f"{info.path}: {info.channels} channels; expected 1, as channels are never summed; "
            + _conversion(info.path, "", "remix 1")
        )
    if info.rate_hz != rate_hz:
        raise UserError(
            f"{info.path}: sampling rate {info.rate_hz} Hz; expected {rate_hz} Hz; "
            + _conversion(info.path, f"-r {rate_hz}")
        )


def read_audio(path: str | Path, rate_hz: int = 16000, *, allow_streamed: bool = False) -> np.ndarray:
    """Reads all samples of a 16-bit mono file.

    Args:
        path: NIST SPHERE (uncompressed), RIFF WAVE or FLAC.
        rate_hz: the rate that the file must have.
        allow_streamed: as for `audio_blocks`.

    Returns:
        int16 array (num_samples,).

    Raises:
        UserError: see `audio_info` and `check_format`; also if FLAC data does not decode to what its header promises.
    """
    blocks = list(audio_blocks(path, rate_hz, None, allow_streamed=allow_streamed))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def audio_blocks(
    path: str | Path, rate_hz: int, block_frames: int | None, *, allow_streamed: bool = False
) -> Iterator[np.ndarray]:
    """Reads a 16-bit mono file in consecutive blocks, so that hours need not be held at once.

    Args:
        path: as for `read_audio`.
        rate_hz: the rate that the file must have.
        block_frames: samples in each block but the last, which may be shorter; None: as is quickest for all of them.
        allow_streamed: believe that a file is whole whose header has a placeholder for the number of samples.

    Raises:
        UserError: as `read_audio`; what only the whole file shows, after its last block.
    """
    path = Path(path)
    with open_regular(path) as file:
        info = _read_header(path, file)
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
            raise _truncated(info.path, info.num_samples, found)
        if info.extrema is not None:
            extrema += [samples.min(), samples.max()]
            swapped_extrema += [(swapped := samples.byteswap()).min(), swapped.max()]
        yield samples.astype(np.int16, copy=False)
    # Extrema that agree neither way are common (files cut or scaled after recording) and prove nothing.
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


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file for reading; without O_NONBLOCK, opening a FIFO would wait for its writer.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        reason = "dangling symbolic link" if path.is_symlink() else "no such file"
        raise UserError(f"{path}: {reason}; check the path, or mount the corpus") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path}: not a regular readable file ({reason}); check its permissions") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{path}: not a regular readable file; give the path of an audio file")
    return os.fdopen(descriptor, "rb")


def _read_header(path: Path, file: BinaryIO) -> AudioInfo:
    start = file.read(16)
    if not start:
        raise UserError(f"{path}: empty file; {COPY_AGAIN}")
    if start.startswith(b"NIST_1A"):
        info = _sphere_header(path, file)
    elif start[:4] == b"RIFF" and start[8:12] == b"WAVE":
        info = _wave_header(path, file)
    elif start.startswith(b"fLaC"):
        return _flac_header(path, file)
    elif start[:4] == b"RF64":
        raise UserError(f"{path}: RF64, for files of 4 GiB and more; cut it into utterances and save them as RIFF WAVE")
    else:
        raise UserError(f"{path}: not audio: starts with {start!r}; expected NIST SPHERE, RIFF WAVE or FLAC")
    if info.num_samples == 0:
        raise UserError(f"{path}: no samples; {COPY_AGAIN}, or remove it")
    return info


def _file_size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _truncated(path: Path, promised: int, found: int) -> UserError:
    return UserError(f"{path}: header says {promised} samples, found {found}; {COPY_AGAIN}")


def _conversion(path: Path, options: str, effect: str = "", of_source: str = "") -> str:
    source, target = shlex.quote(str(path)), shlex.quote(str(path.with_suffix("")) + ".converted.wav")
    words = ("sox", of_source, source, options, target, effect)
    return "convert it, for example with: " + " ".join(filter(None, words))


def _sphere_header(path: Path, file: BinaryIO) -> AudioInfo:
    """NIST SPHERE: ``NIST_1A``, the header's size, lines ``name -type value``, ``end_head``, padding, samples."""
    file.seek(0)
    first = file.read(16)
    try:
        size = int(first[8:16])
    except ValueError:
        raise UserError(f"{path}:2: SPHERE header size {first[8:16]!r}; expected a number; {COPY_AGAIN}") from None
    if not 16 < size <= MAX_SPHERE_HEADER_BYTES or size > _file_size(file):
        raise UserError(f"{path}:2: SPHERE header of {size} bytes in a file of {_file_size(file)} bytes; {COPY_AGAIN}")
    text = file.read(size - 16).decode("latin-1")
    if "end_head" not in text:
        raise UserError(f"{path}: SPHERE header of {size} bytes has no end_head; {COPY_AGAIN}")
    fields = {}
    for line in text.split("end_head")[0].split("\n"):
        parts = line.split(None, 2)
        if len(parts) == 3 and not line.startswith(";"):
            fields[parts[0]] = ascii(parts[2].strip())[1:-1]  # a damaged header must not break messages into lines

    coding = fields.get("sample_coding", "pcm")
    if "shorten" in coding:
        source, target = shlex.quote(str(path)), shlex.quote(str(path.with_suffix("")) + ".pcm.wav")
        raise UserError(
            f"{path}: SPHERE with compression ({coding}), which is not decoded here; run: "
            f"sph2pipe -f wav {source} {target}"
        )
    count, rate_hz, channels, width = (
        _sphere_integer(path, fields, name)
        for name in ("sample_count", "sample_rate", "channel_count", "sample_n_bytes")
    )
    order = fields.get("sample_byte_format", "")
    if width == 2 and coding == "pcm" and order not in ("01", "10"):
        found = f"'{order}'" if order else "missing"
        raise UserError(f"{path}: sample_byte_format is {found}; expected 01 (little-endian) or 10; {COPY_AGAIN}")
    found, rest = divmod(_file_size(file) - size, width * channels)
    if found != count:
        raise _truncated(path, count, found)
    if rest:
        raise UserError(f"{path}: {rest} bytes more than the {count} samples that its header says; {COPY_AGAIN}")
    extrema = None
    if "sample_min" in fields and "sample_max" in fields:
        extrema = (_sphere_integer(path, fields, "sample_min", None), _sphere_integer(path, fields, "sample_max", None))
    return AudioInfo(path, "sphere", coding, 8 * width, channels, rate_hz, count, size, order == "10", extrema)


def _sphere_integer(path: Path, fields: dict[str, str], name: str, least: int | None = 0) -> int:
    try:
        value = int(fields[name])
    except KeyError:
        raise UserError(f"{path}: SPHERE header without {name}; {COPY_AGAIN}") from None
    except ValueError:
        raise UserError(f"{path}: SPHERE header: {name} is '{fields[name]}'; expected a number; {COPY_AGAIN}") from None
    if least is not None and value < (least if name == "sample_count" else 1):
        raise UserError(f"{path}: SPHERE header: {name} is {value}; {COPY_AGAIN}")
    return value


def _wave_header(path: Path, file: BinaryIO) -> AudioInfo:
    """RIFF WAVE: walks over the chunks up to ``data``."""
    file_size, position, layout = _file_size(file), 12, None
    while True:
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            missing = "data" if layout else "fmt"
            raise UserError(f"{path}: RIFF WAVE without a {missing} chunk; {COPY_AGAIN}")
        name, size = struct.unpack("<4sI", head)
        position += 8
        if name == b"data":
            break
        if name == b"fmt ":
            content = file.read(min(size, 40))
            if len(content) < 16:
                raise UserError(f"{path}: RIFF WAVE with a fmt chunk of {len(content)} bytes; {COPY_AGAIN}")
            layout = struct.unpack("<HHIIHH", content[:16])
            if layout[0] == WAVE_EXTENSIBLE and len(content) >= 26:
                layout = (struct.unpack("<H", content[24:26])[0], *layout[1:])
        position += size + size % 2
    if layout is None:
        raise UserError(f"{path}: RIFF WAVE without a fmt chunk before its data; {COPY_AGAIN}")
    tag, channels, rate_hz, _, frame_bytes, bits = layout
    encoding = WAVE_ENCODINGS.get(tag, f"format 0x{tag:04x}")
    consistent = encoding not in ("pcm", "float") or frame_bytes == channels * ((bits + 7) // 8)
    if min(channels, bits, rate_hz) < 1 or not consistent:
        raise UserError(
            f"{path}: RIFF WAVE header with {channels} channels of {bits} bits in {frame_bytes} bytes at {rate_hz} Hz; "
            f"{COPY_AGAIN}"
        )
    frame_bytes = max(frame_bytes, 1)
    found = (file_size - position) // frame_bytes
    if size >= PLACEHOLDER_BYTES and position + size > file_size:
        placeholder = size // frame_bytes
        return AudioInfo(path, "wav", encoding, bits, channels, rate_hz, found, position, placeholder=placeholder)
    if position + size > file_size:
        raise _truncated(path, size // frame_bytes, found)
    if after := _bytes_in_no_chunk(file, position + size + size % 2, file_size):
        raise UserError(
            f"{path}: {after} bytes after the {size // frame_bytes} samples that its header says are in no chunk; "
            + COPY_AGAIN
        )
    if size % frame_bytes:
        raise UserError(f"{path}: {size} bytes of data are no whole number of {frame_bytes}-byte frames; {COPY_AGAIN}")
    return AudioInfo(path, "wav", encoding, bits, channels, rate_hz, size // frame_bytes, position)


def _bytes_in_no_chunk(file: BinaryIO, position: int, file_size: int) -> int:
    """Number of bytes from `position` on that are not of chunks; a header that says too few samples leaves some."""
    while position < file_size:
        file.seek(position)
        head = file.read(8)
        size = int.from_bytes(head[4:], "little")
        if len(head) < 8 or not head[:4].isascii() or position + 8 + size > file_size:
            return file_size - position
        position += 8 + size + size % 2
    return 0


def _describe_float(info: AudioInfo) -> str:
    """Why float samples are refused: the first that is not finite, a peak that would clip, or that they are float."""
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


def _flac_header(path: Path, file: BinaryIO) -> AudioInfo:
    """FLAC: the STREAMINFO block, which must come first."""
    file.seek(4)
    block = file.read(38)
    if len(block) < 38 or block[0] & 0x7F != 0:
        raise UserError(f"{path}: FLAC without a STREAMINFO block; {COPY_AGAIN}")
    packed = int.from_bytes(block[14:22], "big")
    rate_hz, channels, bits = packed >> 44, (packed >> 41 & 0x7) + 1, (packed >> 36 & 0x1F) + 1
    count = packed & (1 << 36) - 1
    if not rate_hz:
        raise UserError(f"{path}: FLAC header with a sampling rate of 0 Hz; {COPY_AGAIN}")
    return AudioInfo(path, "flac", "pcm", bits, channels, rate_hz, count, placeholder=None if count else 0)


def _flac_blocks(info: AudioInfo, file: BinaryIO, block_frames: int | None) -> Iterator[np.ndarray]:
    import soundfile

    found, digest = 0, hashlib.md5(usedforsecurity=False)
    file.seek(26)
    expected_digest = file.read(16)
    file.seek(0)
    try:
        with soundfile.SoundFile(file) as decoder:
            while len(block := decoder.read(block_frames or BLOCK_FRAMES, dtype="int16")):
                found += len(block)
                digest.update(block.astype("<i2", copy=False).tobytes())
                yield block
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise UserError(f"{info.path}: damaged FLAC ({' '.join(str(error).split())}); {COPY_AGAIN}") from None
    if info.num_samples and found != info.num_samples:
        raise _truncated(info.path, info.num_samples, found)
    if not found:
        raise UserError(f"{info.path}: no samples; {COPY_AGAIN}, or remove it")
    if any(expected_digest) and digest.digest() != expected_digest:
        raise UserError(f"{info.path}: decoded samples differ from the MD5 sum in the FLAC header; {COPY_AGAIN}")
