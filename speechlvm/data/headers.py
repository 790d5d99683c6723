"""Headers of NIST SPHERE, RIFF WAVE and FLAC files, checked against the size of the file.

The format is taken from the first bytes of the file (after an ID3v2 tag, if it has one), never from its name (TIMIT's
``.WAV`` files are SPHERE on the LDC's disc and RIFF in many copies). Nothing is allocated from a header.

Headers are read here rather than by libsndfile, because libsndfile silently repairs those of truncated files.
Violations of the format that all other programs accept are accepted here, too, and recorded as oddities: bytes after
the data, a missing pad byte, a size that is off by less than a header. A file is refused if audio is missing or would
be ignored.
"""

import os
import shlex
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from speechlvm.utils.errors import UserError

MAX_SPHERE_HEADER_BYTES, SPHERE_HEADER_UNIT_BYTES = 1 << 20, 1024
SPHERE_MINIMA = {"sample_count": 0, "sample_rate": 1, "channel_count": 1, "sample_n_bytes": 1}
WAVE_PCM, WAVE_FLOAT, WAVE_EXTENSIBLE = 0x0001, 0x0003, 0xFFFE
PLACEHOLDER_BYTES = (1 << 31) - 4096  # the smallest of the sizes that programs write into pipes: sox's
WIDE_PLACEHOLDER_BYTES = 1 << 62  # of 64-bit sizes
WAVE_ENCODINGS = {WAVE_PCM: "pcm", WAVE_FLOAT: "float", 0x0006: "A-law", 0x0007: "mu-law"}
BLOCK_ENCODINGS = {  # those that libsndfile decodes
    0x0002: "MS ADPCM", 0x0011: "IMA ADPCM", 0x0031: "GSM 6.10", 0x0038: "NMS ADPCM", 0x0040: "G.721 ADPCM",
    0x0055: "MP3",
}  # fmt: skip
LAWS = (0x0006, 0x0007)
SIZED_BLOCKS = (0x0002, 0x0011, 0x0031)  # whose fmt chunk has the number of samples per block
WAVE_HEADER_BYTES = 44  # some programs count it as data
METADATA = (b"TAG", b"ID3", b"APETAGEX", b"LIST", b"id3 ", b"bext", b"iXML", b"_PMX")  # first bytes of tags
SEARCHED_BYTES = 1 << 16
ID3V1_BYTES, ID3V2_HEADER_BYTES = 128, 10
COPY_AGAIN = "copy the file again from its source"


@dataclass(frozen=True)
class AudioInfo:
    """The header of an audio file, checked against the size of the file.

    Attributes:
        path: the file.
        container: "sphere", "wav" or "flac".
        encoding: "pcm" (integers), "float", or the name of another coding ("mu-law", "GSM 6.10"; "ulaw" in SPHERE).
        bits: bits per sample; 0 if the coding has no such number.
        channels: number of channels.
        rate_hz: sampling rate.
        num_samples: samples per channel; 0 if only decoding tells (MP3 in RIFF WAVE, FLAC with a placeholder).
        data_offset: position of the samples in bytes (FLAC: of its stream).
        data_bytes: their size in bytes.
        big_endian: byte order of the samples.
        extrema: minimum and maximum sample according to the header, if it has them.
        placeholder: the value in place of the number of samples (for block codings, of bytes) in a header that was
            written to a pipe before the length was known; `num_samples` is then the number found (FLAC: 0).
        layout: the corrected fmt chunk of RIFF WAVE.
        oddities: violations of the format that are accepted.
    """

    path: Path
    container: str
    encoding: str
    bits: int
    channels: int
    rate_hz: int
    num_samples: int
    data_offset: int
    data_bytes: int
    big_endian: bool = False
    extrema: tuple[int, int] | None = None
    placeholder: int | None = None
    layout: bytes = b""
    oddities: tuple[str, ...] = ()

    @property
    def in_four_bytes(self) -> bool:
        """Whether 24-bit samples are stored in four bytes each."""
        return (self.encoding, self.bits, self.data_bytes) == ("pcm", 24, 4 * self.channels * self.num_samples)

    @property
    def in_blocks(self) -> bool:
        """Whether the samples are coded in blocks, as by ADPCM."""
        return self.encoding in BLOCK_ENCODINGS.values()


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file for reading; without O_NONBLOCK, opening a FIFO would wait for its writer.

    Raises:
        UserError: no such file, or it cannot be read.
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


def find_header(file: BinaryIO) -> tuple[str, int]:
    """The container ("sphere", "wav", "flac", or "" for any other) and its position, after an ID3v2 tag."""
    offset = id3v2_bytes(_bytes_at(file, 0, ID3V2_HEADER_BYTES))
    start = _bytes_at(file, offset, 12)
    if start.startswith(b"NIST_1A"):
        return "sphere", offset
    if start[:4] in (b"RIFF", b"RF64") and start[8:] == b"WAVE":
        return "wav", offset
    return ("flac" if start.startswith(b"fLaC") else ""), offset


def id3v2_bytes(start: bytes) -> int:
    """Length of the ID3v2 tag at the start of a file, from its first ten bytes; 0 if there is none."""
    if not start.startswith(b"ID3") or len(start) < ID3V2_HEADER_BYTES:
        return 0
    size = sum(byte << 7 * place for place, byte in enumerate(start[9:5:-1]))
    return ID3V2_HEADER_BYTES + size + (ID3V2_HEADER_BYTES if start[5] & 0x10 else 0)  # a footer, as long as the header


def read_header(path: Path, file: BinaryIO) -> AudioInfo:
    """Reads a header and checks it against the size of the file.

    Raises:
        UserError: empty, not of these containers, truncated, damaged, or without samples.
    """
    if not _file_size(file):
        raise UserError(f"{path}: empty file; {COPY_AGAIN}")
    container, offset = find_header(file)
    if not container:
        start = _bytes_at(file, 0, 16)
        raise UserError(
            f"{path}: unknown format, starts with {start!r}; expected NIST SPHERE, RIFF WAVE or FLAC; if it is audio, "
            + by_ffmpeg(path)
        )
    info = {"sphere": _sphere_header, "wav": _wave_header, "flac": _flac_header}[container](path, file, offset)
    if not info.data_bytes:
        raise UserError(f"{path}: no samples; {COPY_AGAIN}, or remove it")
    return info


def _bytes_at(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def _bytes(number: int) -> str:
    return f"{number} byte{'' if number == 1 else 's'}"


def _file_size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def truncated(path: Path, promised: int, found: int, what: str = "samples") -> UserError:
    """The error for a file with less data than its header says."""
    return UserError(f"{path}: header says {promised} {what}, found {found}; {COPY_AGAIN}")


def conversion(path: Path, options: str, effect: str = "", input_options: str = "") -> str:
    """Advice to convert a file with sox."""
    return _convert_by("sox", input_options, _quoted(path), options, _quoted(path, ".converted.wav"), effect)


def by_ffmpeg(path: Path, input_options: str = "") -> str:
    """Advice to convert a file with ffmpeg, if sox may not read it."""
    return _convert_by("ffmpeg", input_options, "-i", _quoted(path), "-c:a pcm_s16le", _quoted(path, ".converted.wav"))


def _convert_by(*words: str) -> str:
    return "convert it, for example with: " + " ".join(filter(None, words))


def _quoted(path: Path, suffix: str | None = None) -> str:
    return shlex.quote(str(path) if suffix is None else f"{path.with_suffix('')}{suffix}")


def _sphere_header(path: Path, file: BinaryIO, offset: int) -> AudioInfo:
    """NIST SPHERE: ``NIST_1A``, the header's size, lines ``name -type value``, ``end_head``, padding, samples."""
    file_size = _file_size(file)
    fields, size, doubtful = _sphere_fields(path, file, offset)
    coding = fields.get("sample_coding", "pcm")
    if "shorten" in coding:
        command = f"sph2pipe -f wav {_quoted(path)} {_quoted(path, '.pcm.wav')}"
        raise UserError(f"{path}: SPHERE with compression ({coding}), which is not supported; run: {command}")
    count, rate_hz, channels, width = (_sphere_integer(path, fields, name) for name in SPHERE_MINIMA)
    order = fields.get("sample_byte_format", "")
    if width == 2 and coding == "pcm" and order not in ("01", "10"):
        found = f"'{order}'" if order else "missing"
        raise UserError(f"{path}: sample_byte_format is {found}; expected 01 (little-endian) or 10; {COPY_AGAIN}")
    begin, data_bytes = offset + size, count * width * channels
    extra = file_size - begin - data_bytes
    if extra < 0:
        raise truncated(path, count, (file_size - begin) // (width * channels))
    if extra and (doubtful or not _is_metadata(file, begin + data_bytes)):
        raise UserError(f"{path}: {_bytes(extra)} more than the {count} samples that its header says; {COPY_AGAIN}")
    extrema = None
    if "sample_min" in fields and "sample_max" in fields:
        extrema = (_sphere_integer(path, fields, "sample_min"), _sphere_integer(path, fields, "sample_max"))
    return AudioInfo(
        path, "sphere", coding, 8 * width, channels, rate_hz, count, begin, data_bytes, order == "10", extrema,
        oddities=(f"{_bytes(extra)} after the data",) if extra else (),
    )  # fmt: skip


def _sphere_fields(path: Path, file: BinaryIO, offset: int) -> tuple[dict[str, str], int, bool]:
    """The fields of the header, its size, and whether the start of the samples is doubtful."""
    file_size, first = _file_size(file), _bytes_at(file, offset, 16)
    try:
        size = int(first[8:16])
    except ValueError:
        raise UserError(f"{path}:2: SPHERE header size {first[8:16]!r}; expected a number; {COPY_AGAIN}") from None
    if not 16 < size <= MAX_SPHERE_HEADER_BYTES or offset + size > file_size:
        raise UserError(f"{path}:2: SPHERE header of {size} bytes in a file of {file_size} bytes; {COPY_AGAIN}")
    text = file.read(size - 16).decode("latin-1")
    if "end_head" not in text:
        raise UserError(f"{path}: SPHERE header of {size} bytes has no end_head; {COPY_AGAIN}")
    fields = {}
    for line in text.split("end_head")[0].split("\n"):
        parts = line.split(None, 2)
        if len(parts) == 3 and not line.startswith(";"):
            fields[parts[0]] = ascii(parts[2].strip())[1:-1]  # a damaged header must not break messages into lines
    return fields, size, bool(size % SPHERE_HEADER_UNIT_BYTES) or "\r" in text  # \r: a transfer in text mode


def _sphere_integer(path: Path, fields: dict[str, str], name: str) -> int:
    try:
        value = int(fields[name])
    except KeyError:
        raise UserError(f"{path}: SPHERE header without {name}; {COPY_AGAIN}") from None
    except ValueError:
        raise UserError(f"{path}: SPHERE header: {name} is '{fields[name]}'; expected a number; {COPY_AGAIN}") from None
    if value < SPHERE_MINIMA.get(name, value):
        raise UserError(f"{path}: SPHERE header: {name} is {value}; {COPY_AGAIN}")
    return value


class _WaveFormat(NamedTuple):
    """The fmt chunk. PCM has blocks of one sample; 0 samples per block if only decoding tells."""

    encoding: str
    bits: int
    channels: int
    rate_hz: int
    block_bytes: int
    block_samples: int
    layout: bytes  # the chunk with correct numbers


def _wave_header(path: Path, file: BinaryIO, offset: int) -> AudioInfo:
    """RIFF WAVE, and RF64, its variant with 64-bit sizes."""
    oddities: list[str] = []
    content, begin, size, is_wide = _find_wave_data(path, file, offset, oddities)
    fmt = _wave_format(path, content, oddities)
    unit, unit_bytes = ("samples", fmt.block_bytes) if fmt.block_samples == 1 else ("bytes", 1)
    found, placeholder = _file_size(file) - begin, None
    data_bytes = min(size, found)
    if size > found and size >= (WIDE_PLACEHOLDER_BYTES if is_wide else PLACEHOLDER_BYTES):
        placeholder = size // unit_bytes
    elif size > found:
        if size - found > WAVE_HEADER_BYTES and size - found not in (begin - offset, begin - offset - 8):
            raise truncated(path, size // unit_bytes, found // unit_bytes, unit)
        oddities.append(f"{_bytes(size - found)} less than its header says")  # rounded, or with the header counted in
    else:
        extra = begin + found - _end_of_chunks(path, file, begin, size, oddities)
        if extra > WAVE_HEADER_BYTES and not _is_metadata(file, begin + found - extra):
            if size:
                raise UserError(
                    f"{path}: {_bytes(extra)} after the {size // unit_bytes} {unit} that its header says are in no "
                    f"chunk; if they are audio, {conversion(path, '', '', '--ignore-length')}; if not, the same "
                    "without --ignore-length"
                )
            data_bytes, placeholder = found, 0
        elif extra > 0:
            oddities.append(f"{_bytes(extra)} after the data")
    count, rest = divmod(data_bytes, fmt.block_bytes)
    if rest:
        oddities.append(f"{_bytes(rest)} of an incomplete {'sample' if fmt.block_samples == 1 else 'block'}")
    return AudioInfo(
        path, "wav", fmt.encoding, fmt.bits, fmt.channels, fmt.rate_hz, count * fmt.block_samples, begin,
        data_bytes - rest, placeholder=placeholder, layout=fmt.layout, oddities=tuple(oddities),
    )  # fmt: skip


def _find_wave_data(path: Path, file: BinaryIO, offset: int, oddities: list[str]) -> tuple[bytes, int, int, bool]:
    """Finds the ``data`` chunk and reads the chunks before it.

    Returns:
        The fmt chunk, position and size of the data, and whether sizes have 64 bits.
    """
    position, content, is_wide, wide_size = offset + 12, b"", _bytes_at(file, offset, 4) == b"RF64", None
    while (chunk := _chunk(file, position))[0] not in (b"data", b""):
        name, size = chunk
        if name == b"ds64":
            wide_size = int.from_bytes(file.read(16)[8:], "little")
        if name == b"fmt ":
            content = file.read(min(size, SEARCHED_BYTES))
            if len(content) < 16:
                raise UserError(f"{path}: RIFF WAVE with a fmt chunk of {len(content)} bytes; {COPY_AGAIN}")
        begin = position + 8
        position = _next_chunk(file, begin, size)
        if not _chunk(file, position)[0]:
            position = _search_data(file, begin)
        if position != begin + size + size % 2:
            oddities.append("a chunk without its pad byte" if position == begin + size else "a chunk with a wrong size")
    name, size = chunk
    if not name:
        raise UserError(f"{path}: RIFF WAVE without a {'data' if content else 'fmt'} chunk; {COPY_AGAIN}")
    if not content:
        raise UserError(f"{path}: RIFF WAVE without a fmt chunk before its data; {COPY_AGAIN}")
    if is_wide and size == 0xFFFFFFFF and wide_size is not None:
        size = wide_size
    return content, position + 8, size, is_wide


def _wave_format(path: Path, content: bytes, oddities: list[str]) -> _WaveFormat:
    tag, channels, rate_hz, _, align, bits = struct.unpack("<HHIIHH", content[:16])
    if tag == WAVE_EXTENSIBLE and len(content) >= 26:
        tag = int.from_bytes(content[24:26], "little")
    encoding = (WAVE_ENCODINGS | BLOCK_ENCODINGS).get(tag)
    if encoding is None:
        raise UserError(f"{path}: RIFF WAVE with coding 0x{tag:04x}, which is not supported; {by_ffmpeg(path)}")
    in_blocks = tag in BLOCK_ENCODINGS
    if tag in LAWS:
        bits = 8
    if min(channels, rate_hz) < 1 or not (in_blocks or 0 < bits <= 64):
        raise UserError(
            f"{path}: RIFF WAVE header with {channels} channels of {bits} bits at {rate_hz} Hz; {COPY_AGAIN}"
        )
    if in_blocks:
        samples = int.from_bytes(content[18:20], "little") if tag in SIZED_BLOCKS else 0
        return _WaveFormat(encoding, bits, channels, rate_hz, max(align, 1), samples, content)
    width = (bits + 7) // 8
    if (tag, bits, align) == (WAVE_PCM, 24, 4 * channels):
        width = 4
        oddities.append("24 bits in 4 bytes")
    elif align != channels * width:
        oddities.append(f"block align {align}")
    numbers = (tag, channels, rate_hz, rate_hz * channels * width & 0xFFFFFFFF, channels * width & 0xFFFF, 8 * width)
    return _WaveFormat(encoding, bits, channels, rate_hz, channels * width, 1, struct.pack("<HHIIHH", *numbers))


def _chunk(file: BinaryIO, position: int) -> tuple[bytes, int]:
    """Name and size of the chunk at a position; no name if none begins there, or it is longer than the file."""
    head = _bytes_at(file, position, 8)
    name, size = head[:4], int.from_bytes(head[4:], "little")
    is_one = len(head) == 8 and all(0x20 <= byte < 0x7F for byte in name)
    return (name, size) if is_one and (name == b"data" or position + 8 + size <= _file_size(file)) else (b"", 0)


def _next_chunk(file: BinaryIO, begin: int, size: int) -> int:
    """Position of the next chunk; some programs leave out the pad byte of chunks of odd size."""
    return begin + size if size % 2 and _chunk(file, begin + size)[0] else begin + size + size % 2


def _search_data(file: BinaryIO, begin: int) -> int:
    """Position of the data chunk after a chunk whose size is wrong; the end of the file if it cannot be found."""
    content, place = _bytes_at(file, begin, SEARCHED_BYTES), -1
    while (place := content.find(b"data", place + 1)) >= 0:
        if begin + place + 8 + _chunk(file, begin + place)[1] <= _file_size(file):
            return begin + place
    return _file_size(file)


def _end_of_chunks(path: Path, file: BinaryIO, begin: int, size: int, oddities: list[str]) -> int:
    """End of the last chunk after the data, or of the data.

    Raises:
        UserError: there is more data.
    """
    end = _next_chunk(file, begin, size)
    if size % 2 and end == begin + size:
        oddities.append("no pad byte after the data")
    while (chunk := _chunk(file, end))[0] and end + 8 + chunk[1] <= _file_size(file):
        if chunk[0] == b"data" and chunk[1]:
            raise UserError(
                f"{path}: a second data chunk, of {chunk[1]} bytes, which programs ignore; save the file with one, in "
                "the program that wrote it, or split it into two files"
            )
        end = _next_chunk(file, end + 8, chunk[1])
    return end


def _is_metadata(file: BinaryIO, position: int) -> bool:
    """Whether the rest of the file is a tag, or filled with bytes of 0 or of 255, perhaps before a tag."""
    filling = b"\xff" if _bytes_at(file, position, 1) == b"\xff" else b"\0"
    file.seek(position)
    for block in iter(lambda: file.read(SEARCHED_BYTES), b""):
        if rest := block.lstrip(filling):
            return rest.startswith(METADATA)
    return True


def _flac_header(path: Path, file: BinaryIO, offset: int) -> AudioInfo:
    """FLAC: the STREAMINFO block, which must come first."""
    block = _bytes_at(file, offset + 4, 38)
    if len(block) < 38 or block[0] & 0x7F != 0:
        raise UserError(f"{path}: FLAC without a STREAMINFO block; {COPY_AGAIN}")
    packed = int.from_bytes(block[14:22], "big")
    rate_hz, channels, bits = packed >> 44, (packed >> 41 & 0x7) + 1, (packed >> 36 & 0x1F) + 1
    count = packed & (1 << 36) - 1
    if not rate_hz:
        raise UserError(f"{path}: FLAC header with a sampling rate of 0 Hz; {COPY_AGAIN}")
    end = _file_size(file)
    if _bytes_at(file, max(0, end - ID3V1_BYTES), 3) == b"TAG":
        end -= ID3V1_BYTES
    placeholder = None if count else 0
    return AudioInfo(path, "flac", "pcm", bits, channels, rate_hz, count, offset, end - offset, placeholder=placeholder)


def check_flac_md5(info: AudioInfo, file: BinaryIO, found: bytes) -> None:
    """Compares the MD5 sum of decoded samples with that in the FLAC header, if there is one.

    Raises:
        UserError: they differ.
    """
    expected = _bytes_at(file, info.data_offset + 26, 16)
    if any(expected) and expected != found:
        raise UserError(f"{info.path}: decoded samples differ from the MD5 sum in the FLAC header; {COPY_AGAIN}")
