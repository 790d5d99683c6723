"""Conversion of recordings in any container that libsndfile reads to 16-bit mono RIFF WAVE, block by block.

Likelihoods are of exact sample values, so each file is converted once, in preparation, and the conversion is recorded:

- Channels are averaged or one is chosen; then the rate is changed (by soxr, with an error below that of 16 bits); then
  values are rounded, half to even. Overshoot of the resampler is clipped and counted; samples of the recording itself
  beyond full scale, as in floating-point files, only if the caller allows it.
- No dither is added. It would be noise that costs every model most of a bit per frame, and that corpora distributed as
  16-bit PCM do not have.
- Recordings that are 16-bit, mono and of the right rate keep their values.

Containers: WAV of any width, RF64, FLAC, MP3, Ogg (Vorbis, Opus), AIFF, NIST SPHERE, AU, CAF. Their headers are
compared with their contents: sizes, the MD5 sum of FLAC, the last page of Ogg, the number of samples of MP3 files that
have one (a truncated MP3 file without one looks like a complete one).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from speechlvm.data.audio import (
    MOST_FRAMES,
    ODD,
    audio_info,
    check_length,
    log_oddities,
    most_frames,
    open_decoder,
    unknown_length,
    wav_header,
)
from speechlvm.data.headers import (
    COPY_AGAIN,
    PLACEHOLDER_BYTES,
    WAVE_HEADER_BYTES,
    WIDE_PLACEHOLDER_BYTES,
    AudioInfo,
    by_ffmpeg,
    check_flac_md5,
    find_header,
    id3v2_bytes,
    open_regular,
    truncated,
)
from speechlvm.data.log import Log
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import atomic_write, version_of, write_json

BLOCK_FRAMES = 1 << 16
FULL_SCALE = 32768
UNKNOWN_FRAMES = 1 << 62  # libsndfile says 2^63 - 1 where a header says nothing
LARGEST_OGG_PAGE_BYTES, OGG_HEADER_BYTES = 65307, 27
OGG_LAST_PAGE = 4
EMPTY_BYTES = 8  # the part of a RIFF header that its size does not count
# Some encoders count the block that holds the count, or what they padded the last one with.
MP3_TOLERANCE_FRAMES = 2 * 1152
FOREIGN = ((4, b"ftyp", "MPEG-4 audio (m4a, AAC)"), (0, b"0&\xb2u\x8e", "Windows Media audio (wma)"))


@dataclass(frozen=True)
class Converted:
    """Result of a conversion.

    Attributes:
        frames: number of samples of the new file.
        rate_hz: its sampling rate.
        digest: SHA-256 of its samples, in hexadecimal; equal for copies of the same recording.
    """

    frames: int
    rate_hz: int
    digest: str


def convert_audio(
    source: Path,
    target: Path,
    rate_hz: int | None,
    channel: int | Literal["mix"],
    log: Log,
    *,
    clip: bool = False,
    allow_streamed: bool = False,
) -> Converted:
    """Converts a recording to 16-bit mono RIFF WAVE in bounded memory; `target` is written completely or not at all.

    The conversion is recorded in ``<target>.json``; a target made from the same file in the same way is kept.

    Args:
        source: the recording.
        target: the file to write.
        rate_hz: sampling rate to convert to; None keeps that of the recording.
        channel: number of the channel, from 0, or "mix" for the mean of all.
        log: counts irregularities: clipping, rates below `rate_hz`, MP3 files shorter than their headers say.
        clip: clip samples of the recording beyond full scale, and count them.
        allow_streamed: treat files as complete whose headers have a placeholder for the number of samples.

    Raises:
        UserError: not a regular readable file, empty, not audio, not supported, truncated, damaged, with
            values that are not finite or (without `clip`) beyond full scale, without that channel, without samples, or
            too long for RIFF WAVE.
    """
    record = target.with_name(f"{target.name}.json")
    with open_regular(source) as file:
        stamp = [str(source), *version_of(source)]
        options = {"rate_hz": rate_hz, "channel": channel, "clip": clip, "allow_streamed": allow_streamed}
        inputs = {"source": stamp, **options}
        known = _made_before(target, record, inputs)
        if known is None:
            own = Log()
            converted = _convert(source, file, target, own, **options)
            known = {"inputs": inputs, "converted": asdict(converted), "tolerated": own.tolerated}
            write_json(record, known)
    for kind, names in known["tolerated"].items():
        for name in names:
            log.tolerate(kind, name)
    return Converted(**known["converted"])


def _made_before(target: Path, record: Path, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a target that is complete and made from these inputs."""
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        size = len(wav_header(0, 1)) + 2 * known["converted"]["frames"]
        return known if known["inputs"] == inputs and size == target.stat().st_size else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _convert(
    source: Path,
    file: BinaryIO,
    target: Path,
    log: Log,
    rate_hz: int | None,
    channel: int | Literal["mix"],
    clip: bool,
    allow_streamed: bool,
) -> Converted:
    info = check_container(source, file, allow_streamed, log)
    with decoding(source, info, file) as decoder:
        old_rate_hz, new_rate_hz = decoder.samplerate, rate_hz or decoder.samplerate
        frames = info.num_samples if info is not None else decoder.frames
        if MOST_FRAMES < frames * new_rate_hz / old_rate_hz < UNKNOWN_FRAMES:
            raise _too_long(source, new_rate_hz)
        mono = _decode(source, file, decoder, channel, info, log, clip)
        frames, clipped, digest = _write(source, target, _resample(mono, old_rate_hz, new_rate_hz), new_rate_hz)
    if clipped:
        log.tolerate("recordings have samples beyond full scale, which were clipped", f"{source} ({clipped})")
    if old_rate_hz < new_rate_hz:
        kind = f"recordings are sampled below {new_rate_hz} Hz and have nothing above half their own rate"
        log.tolerate(kind, f"{source} ({old_rate_hz} Hz)")
    return Converted(frames, new_rate_hz, digest)


@contextmanager
def decoding(source: Path, info: AudioInfo | None, file: BinaryIO) -> Iterator[Any]:
    """The decoder of `open_decoder`; its errors become one-line messages.

    Raises:
        UserError: libsndfile cannot read the file.
    """
    import soundfile

    file.seek(0)
    start = file.read(16)
    try:
        with open_decoder(info, file) as decoder:
            yield decoder
    except (soundfile.SoundFileError, RuntimeError) as error:
        reason = " ".join(str(error).split()).rpartition(": ")[2].rstrip(".")
        raise UserError(
            f"{source}: cannot be read as audio ({reason}); starts with {start!r}; {COPY_AGAIN}, or, if other programs "
            f"read it, {by_ffmpeg(source)}"
        ) from None


def _too_long(source: Path, rate_hz: int) -> UserError:
    return UserError(
        f"{source}: more than {MOST_FRAMES} frames at {rate_hz} Hz, the limit of a RIFF WAVE file; split it into "
        "several files"
    )


def check_container(source: Path, file: BinaryIO, allow_streamed: bool, log: Log) -> AudioInfo | None:
    """Checks sizes that libsndfile would silently repair; returns the header of the containers in `headers`.

    Raises:
        UserError: empty, truncated, or of a kind that is not supported.
        UnknownLength: the header has a placeholder for the length, and that is not allowed.
    """
    file.seek(0)
    start, size = file.read(32), os.fstat(file.fileno()).st_size
    for place, magic, name in FOREIGN:
        if start[place:].startswith(magic):
            raise UserError(f"{source}: {name}, which is not supported; {by_ffmpeg(source)}")
    if not start or find_header(file)[0]:
        info = audio_info(source)
        if not allow_streamed:
            check_length(info)
        log_oddities(info, log)
        return info
    promised, least_placeholder = _promised_bytes(start)
    if promised > size and promised >= least_placeholder or promised == EMPTY_BYTES:
        if not allow_streamed:
            raise unknown_length(source, f"header says {promised} bytes, found {size}", by_ffmpeg(source))
    elif promised > size + WAVE_HEADER_BYTES:
        raise truncated(source, promised, size, "bytes")
    elif promised > size:
        log.tolerate(ODD, f"{source} ({promised - size} bytes less than its header says)")
    if start.startswith(b"OggS"):
        _check_ogg(source, file, size, allow_streamed)
    return None


def _promised_bytes(start: bytes) -> tuple[int, int]:
    """Size of the whole file according to the header of another container, and the smallest placeholder.

    The size is 0 if the header has none; EMPTY_BYTES if the header was written first and never updated.
    """
    if start.startswith((b"FORM", b"RIFX")):
        return EMPTY_BYTES + int.from_bytes(start[4:8], "big"), PLACEHOLDER_BYTES
    if start.startswith(b"riff"):  # W64
        return int.from_bytes(start[16:24], "little") or EMPTY_BYTES, WIDE_PLACEHOLDER_BYTES
    if start.startswith(b".snd"):
        size = int.from_bytes(start[8:12], "big")
        return int.from_bytes(start[4:8], "big") + size if size else EMPTY_BYTES, PLACEHOLDER_BYTES
    return 0, 0


def _check_ogg(source: Path, file: BinaryIO, size: int, allow_streamed: bool) -> None:
    file.seek(max(0, size - LARGEST_OGG_PAGE_BYTES))
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    segments = page[OGG_HEADER_BYTES:][: page[OGG_HEADER_BYTES - 1]] if len(page) > OGG_HEADER_BYTES else b""
    if len(page) < OGG_HEADER_BYTES + len(segments) + sum(segments):
        raise UserError(f"{source}: Ogg without its last page; {COPY_AGAIN}")
    if not page[5] & OGG_LAST_PAGE and not allow_streamed:
        raise unknown_length(source, "no page is marked as the last one", by_ffmpeg(source))


def _decode(
    source: Path,
    file: BinaryIO,
    decoder: Any,
    channel: int | Literal["mix"],
    info: AudioInfo | None,
    log: Log,
    clip: bool,
) -> Iterator[np.ndarray]:
    """Blocks (n,) of float64 in [-1, 1] of one channel or the mean of all.

    Raises:
        UserError: see `convert_audio`.
    """
    if channel != "mix" and not 0 <= channel < decoder.channels:
        raise UserError(
            f"{source}: no channel {channel}; it has {decoder.channels}; give 0 to {decoder.channels - 1}, or mix"
        )
    promised = info.num_samples if info is not None and info.num_samples else decoder.frames
    promised = promised if promised < UNKNOWN_FRAMES else 0
    is_flac = info is not None and info.container == "flac"
    low = info is not None and info.in_four_bytes and _in_low_bytes(info, file)
    decoded, beyond, peak, digest = 0, 0, 0.0, hashlib.md5(usedforsecurity=False)
    while len(block := decoder.read(most_frames(promised, decoded, BLOCK_FRAMES), dtype="float64", always_2d=True)):
        if low:  # libsndfile reads the high ones
            block = (256 * block + 1) % 2 - 1
        bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if len(bad):
            raise UserError(f"{source}: sample {decoded + bad[0]} is not a finite number; {COPY_AGAIN}")
        if is_flac:
            digest.update(_integers(block, info.bits))
        decoded += len(block)
        mono = block.mean(axis=1) if channel == "mix" else block[:, channel]
        beyond += int(np.count_nonzero(np.abs(mono) > 1))
        peak = max(peak, float(np.abs(mono).max()))
        yield mono
    if decoded < promised and not _is_short_mp3(source, file, decoder, info, promised - decoded, log):
        raise truncated(source, promised, decoded)
    if is_flac:
        check_flac_md5(info, file, digest.digest())
    if beyond and not clip:
        raise UserError(
            f"{source}: {beyond} samples beyond full scale (peak {peak:.3f}); scale the recording down, or clip them "
            "with --clip true"
        )


def _is_short_mp3(source: Path, file: BinaryIO, decoder: Any, info: AudioInfo | None, missing: int, log: Log) -> bool:
    """Whether no audio is missing: the sample count of an MP3 header can be an estimate, or include padding."""
    if decoder.subtype != "MPEG_LAYER_III":
        return False
    has_count = _has_count(file, info.data_offset if info else 0)  # if not, the number is libsndfile's estimate
    if has_count and missing <= MP3_TOLERANCE_FRAMES:
        log.tolerate("MP3 files are up to two blocks shorter than their headers say", str(source))
    return not has_count or missing <= MP3_TOLERANCE_FRAMES


def _integers(block: np.ndarray, bits: int) -> bytes:
    """The samples as in FLAC's MD5 sum: interleaved little-endian integers of whole bytes."""
    values = np.rint(block * 2.0 ** (bits - 1)).astype("<i4")
    return values.view(np.uint8).reshape(-1, 4)[:, : (bits + 7) // 8].tobytes()


def _in_low_bytes(info: AudioInfo, file: BinaryIO) -> bool:
    """Whether 24 bits in four bytes are the low three bytes (ALSA's S24_LE) and not the high ones (S32_LE).

    Raises:
        UserError: all four are used.
    """
    low = high = True
    file.seek(info.data_offset)
    for start in range(0, info.num_samples * info.channels, BLOCK_FRAMES):
        values = np.fromfile(file, "<i4", min(BLOCK_FRAMES, info.num_samples * info.channels - start))
        spare = values >> 24  # repeats the sign, or is 0
        low &= bool(((spare == 0) | (spare == values << 8 >> 31)).all())
        high &= not (values & 0xFF).any()
    if not low and not high:
        raise UserError(
            f"{info.path}: 24 bits in 4 bytes, all of which are used; save it with 24 bits in 3 bytes, in the program "
            "that wrote it"
        )
    return low


def _has_count(file: BinaryIO, offset: int) -> bool:
    """Whether the first MP3 block, at an offset in a file, gives the number of samples of the file."""
    file.seek(offset)
    file.seek(offset + id3v2_bytes(file.read(10)))
    first = file.read(266)
    return any(tag in first for tag in (b"Xing", b"Info", b"VBRI"))


def _resample(blocks: Iterator[np.ndarray], old_rate_hz: int, new_rate_hz: int) -> Iterator[np.ndarray]:
    if old_rate_hz == new_rate_hz:
        yield from blocks
        return
    import soxr

    stream = soxr.ResampleStream(old_rate_hz, new_rate_hz, 1, dtype="float64", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.zeros(0), last=True)


def _write(source: Path, target: Path, blocks: Iterator[np.ndarray], rate_hz: int) -> tuple[int, int, str]:
    """Number of frames written, how many of them were clipped, and the SHA-256 of the samples."""
    frames, clipped, digest = 0, 0, hashlib.sha256()
    with atomic_write(target, "wb") as file:
        file.write(wav_header(0, rate_hz))
        for block in blocks:
            values = np.rint(block * FULL_SCALE)
            samples = np.clip(values, -FULL_SCALE, FULL_SCALE - 1)
            clipped += int(np.count_nonzero(samples != values))
            frames += len(samples)
            if frames > MOST_FRAMES:
                raise _too_long(source, rate_hz)
            data = samples.astype("<i2").tobytes()
            digest.update(data)
            file.write(data)
        if not frames:
            raise UserError(f"{source}: no samples; {COPY_AGAIN}, or remove it")
        file.seek(0)
        file.write(wav_header(frames, rate_hz))
    return frames, clipped, digest.hexdigest()
