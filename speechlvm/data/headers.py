"""Headers of NIST SPHERE, RIFF WAVE and FLAC files, checked against the contents of the files.

The format is taken from the first bytes of the file (behind an ID3v2 tag, if it has one), never from its name (TIMIT's
``.WAV`` files are SPHERE on the LDC's disc and RIFF in many copies). Nothing is allocated from a header.

Headers are read here rather than by libsndfile, because libsndfile silently repairs those of truncated files. What
programs write against the rules and every other program reads is read here, too, and told as an oddity of the file:
bytes behind the data, no pad byte, a size that is off by less than a header. A file is refused where audio is missing,
or would be left out.
"""

import os
import shlex
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from speechlvm.utils.errors import UserError

MAX_SPHERE_HEADER_BYTES, SPHERE_HEADER_UNIT_BYTES = 1 << 20, 1024
WAVE_PCM, WAVE_FLOAT, WAVE_EXTENSIBLE = 0x0001, 0x0003, 0xFFFE
PLACEHOLDER_BYTES = (1 << 31) - 4096  # the least of the sizes that programs write into pipes: sox's
WIDE_PLACEHOLDER_BYTES = 1 << 62  # of sizes of 64 bits
WAVE_ENCODINGS = {WAVE_PCM: "pcm", WAVE_FLOAT: "float", 0x0006: "A-law", 0x0007: "mu-law"}
BLOCK_ENCODINGS = {  # those that libsndfile decodes
    0x0002: "MS ADPCM", 0x0011: "IMA ADPCM", 0x0031: "GSM 6.10", 0x0038: "NMS ADPCM", 0x0040: "G.721 ADPCM",
    0x0055: "MP3",
}  # fmt: skip
LAWS = (0x0006, 0x0007)
SIZED_BLOCKS = (0x0002, 0x0011, 0x0031)  # whose fmt chunk says how many samples a block has
WAVE_HEADER_BYTES = 44  # some programs count it as data
NO_AUDIO = (b"TAG", b"ID3", b"APETAGEX", b"LIST", b"id3 ", b"bext", b"iXML", b"_PMX")  # how tags and notes start
SEARCHED_BYTES = 1 << 16
ID3V1_BYTES, ID3V2_HEADER_BYTES = 128, 10
COPY_AGAIN = "copy the file again from its source"


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says, once it agrees with the size of the file.

    Attributes:
        path: the file.
        container: "sphere", "wav" or "flac".
        encoding: "pcm" (integers), "float", or the name of another coding ("mu-law", "GSM 6.10"; "ulaw" in SPHERE).
        bits: bits per sample; 0 where the coding has no such number.
        channels: number of channels.
        rate_hz: sampling rate.
        num_samples: samples per channel; 0 where only decoding tells (MP3 in RIFF WAVE, FLAC with a placeholder).
        data_offset: where the samples begin, in bytes (FLAC: where its stream does).
        data_bytes: how many bytes there are of them.
        big_endian: byte order of the samples.
        extrema: least and greatest sample as the header has them, if it does.
        placeholder: what the header has in place of a number of samples (of a coding in blocks: of bytes), if it was
            written into a pipe before that was known; `num_samples` is what the file holds then (FLAC: 0).
        layout: of RIFF WAVE, the fmt chunk as it should be.
        oddities: what the file has against the rules of its format, and is read all the same.
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
        """Whether 24 bits stand in four bytes each."""
        return (self.encoding, self.bits, self.data_bytes) == ("pcm", 24, 4 * self.channels * self.num_samples)

    @property
    def in_blocks(self) -> bool:
        """Whether the samples are coded in blocks, as by ADPCM."""
        return self.encoding in BLOCK_ENCODINGS.values()


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


def find_header(file: BinaryIO) -> tuple[str, int]:
    """The container ("sphere", "wav", "flac", or empty for another), and where it begins, behind an ID3v2 tag."""
    start = _bytes_at(file, 0, ID3V2_HEADER_BYTES)
    offset = id3v2_bytes(start)
    start = _bytes_at(file, offset, 12)
    if start.startswith(b"NIST_1A"):
        return "sphere", offset
    if start[:4] in (b"RIFF", b"RF64") and start[8:] == b"WAVE":
        return "wav", offset
    return ("flac" if start.startswith(b"fLaC") else ""), offset


def id3v2_bytes(start: bytes) -> int:
    """Length of the ID3v2 tag that a file starts with, from its first ten bytes; 0 if there is none."""
    if not start.startswith(b"ID3") or len(start) < ID3V2_HEADER_BYTES:
        return 0
    size = sum(byte << 7 * place for place, byte in enumerate(start[9:5:-1]))
    return ID3V2_HEADER_BYTES + size + (ID3V2_HEADER_BYTES if start[5] & 0x10 else 0)  # a footer, as long as the header


def read_header(path: Path, file: BinaryIO) -> AudioInfo:
    """Reads a header and compares it with the size of the file.

    Raises:
        UserError: empty, not of these containers, truncated, damaged, or without samples.
    """
    if not _file_size(file):
        raise UserError(f"{path}: empty file; {COPY_AGAIN}")
    container, offset = find_header(file)
    if not container:
        start = _bytes_at(file, 0, 16)
        raise UserError(
            f"{path}: not audio that is read here: starts with {start!r}; expected NIST SPHERE, RIFF WAVE or FLAC; "
            f"if it is audio, {by_ffmpeg(path)}"
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
    """Less than a header says."""
    return UserError(f"{path}: header says {promised} {what}, found {found}; {COPY_AGAIN}")


def conversion(path: Path, options: str, effect: str = "", of_source: str = "") -> str:
    """What to do with a file that has to be another."""
    source, target = shlex.quote(str(path)), shlex.quote(str(path.with_suffix("")) + ".converted.wav")
    words = ("sox", of_source, source, options, target, effect)
    return "convert it, for example with: " + " ".join(filter(None, words))


def by_ffmpeg(path: Path, of_source: str = "") -> str:
    """The same for what only ffmpeg reads."""
    source, target = shlex.quote(str(path)), shlex.quote(str(path.with_suffix("")) + ".converted.wav")
    words = ("ffmpeg", of_source, "-i", source, "-c:a pcm_s16le", target)
    return "convert it, for example with: " + " ".join(filter(None, words))


def _sphere_header(path: Path, file: BinaryIO, offset: int) -> AudioInfo:
    """NIST SPHERE: ``NIST_1A``, the header's size, lines ``name -type value``, ``end_head``, padding, samples."""
    file_size = _file_size(file)
    first = _bytes_at(file, offset, 16)
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
    begin, data_bytes = offset + size, count * width * channels
    behind = file_size - begin - data_bytes
    if behind < 0:
        raise truncated(path, count, (file_size - begin) // (width * channels))
    # In a text transfer (\r) or with an odd header, it is not known where the samples begin.
    doubtful = size % SPHERE_HEADER_UNIT_BYTES or "\r" in text
    if behind and (doubtful or not _is_no_audio(file, begin + data_bytes)):
        raise UserError(f"{path}: {behind} bytes more than the {count} samples that its header says; {COPY_AGAIN}")
    oddities = (f"{_bytes(behind)} behind the data",) if behind else ()
    extrema = None
    if "sample_min" in fields and "sample_max" in fields:
        extrema = (_sphere_integer(path, fields, "sample_min", None), _sphere_integer(path, fields, "sample_max", None))
    return AudioInfo(
        path, "sphere", coding, 8 * width, channels, rate_hz, count, begin, data_bytes, order == "10", extrema,
        oddities=oddities,
    )  # fmt: skip


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


def _wave_header(path: Path, file: BinaryIO, offset: int) -> AudioInfo:
    """RIFF WAVE, and RF64, which is the same with sizes of 64 bits: walks over the chunks up to ``data`` and behind."""
    file_size, position, content, oddities = _file_size(file), offset + 12, b"", []
    is_wide, wide_size = _bytes_at(file, offset, 4) == b"RF64", None
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
            position = _find_data(file, begin)
        if position != begin + size + size % 2:
            oddities.append("a chunk without its pad byte" if position == begin + size else "a chunk with a wrong size")
    if not chunk[0]:
        raise UserError(f"{path}: RIFF WAVE without a {'data' if content else 'fmt'} chunk; {COPY_AGAIN}")
    if not content:
        raise UserError(f"{path}: RIFF WAVE without a fmt chunk before its data; {COPY_AGAIN}")
    encoding, bits, channels, rate_hz, block_bytes, block_samples, layout = _wave_layout(path, content, oddities)
    unit, unit_bytes = ("samples", block_bytes) if block_samples == 1 else ("bytes", 1)
    begin, size, placeholder = position + 8, chunk[1], None
    if is_wide and size == 0xFFFFFFFF and wide_size is not None:
        size = wide_size
    found = data_bytes = file_size - begin
    if size > found and size >= (WIDE_PLACEHOLDER_BYTES if is_wide else PLACEHOLDER_BYTES):
        placeholder = size // unit_bytes
    elif size > found:
        if size - found > WAVE_HEADER_BYTES and size - found not in (begin - offset, begin - offset - 8):
            raise truncated(path, size // unit_bytes, found // unit_bytes, unit)
        oddities.append(f"{_bytes(size - found)} less than its header says")  # rounded, or with the header counted in
    else:
        data_bytes, end = size, _end_of_chunks(path, file, begin, size, oddities)
        if file_size - end > WAVE_HEADER_BYTES and not _is_no_audio(file, end):
            if size:
                raise UserError(
                    f"{path}: {file_size - end} bytes behind the {size // unit_bytes} {unit} that its header says "
                    "are in no chunk; if they are audio, " + conversion(path, "", "", "--ignore-length")
                    + "; if not, the same without --ignore-length"
                )  # fmt: skip
            data_bytes, placeholder = found, 0
        elif file_size > end:
            oddities.append(f"{_bytes(file_size - end)} behind the data")
    count, rest = divmod(data_bytes, block_bytes)
    if rest:
        oddities.append(f"{_bytes(rest)} of a {'sample' if block_samples == 1 else 'block'} that is not whole")
    return AudioInfo(
        path, "wav", encoding, bits, channels, rate_hz, count * block_samples, begin, data_bytes - rest,
        placeholder=placeholder, layout=layout, oddities=tuple(oddities),
    )  # fmt: skip


def _wave_layout(path: Path, content: bytes, oddities: list[str]) -> tuple[str, int, int, int, int, int, bytes]:
    """Encoding, bits, channels, rate, bytes and samples of a block, and the fmt chunk as it should be.

    A block of PCM is a frame of one sample; 0 samples where only decoding tells.
    """
    tag, channels, rate_hz, _, align, bits = struct.unpack("<HHIIHH", content[:16])
    if tag == WAVE_EXTENSIBLE and len(content) >= 26:
        tag = int.from_bytes(content[24:26], "little")
    encoding = (WAVE_ENCODINGS | BLOCK_ENCODINGS).get(tag)
    if encoding is None:
        raise UserError(f"{path}: RIFF WAVE with coding 0x{tag:04x}, which is not decoded here; {by_ffmpeg(path)}")
    in_blocks = tag in BLOCK_ENCODINGS
    if tag in LAWS:
        bits = 8
    if min(channels, rate_hz) < 1 or not (in_blocks or 0 < bits <= 64):
        raise UserError(
            f"{path}: RIFF WAVE header with {channels} channels of {bits} bits at {rate_hz} Hz; {COPY_AGAIN}"
        )
    if in_blocks:
        samples = int.from_bytes(content[18:20], "little") if tag in SIZED_BLOCKS else 0
        return encoding, bits, channels, rate_hz, max(align, 1), samples, content
    width = (bits + 7) // 8
    if (tag, bits, align) == (WAVE_PCM, 24, 4 * channels):
        width = 4
        oddities.append("24 bits in 4 bytes")
    elif align != channels * width:
        oddities.append(f"block align {align}")
    numbers = (tag, channels, rate_hz, rate_hz * channels * width & 0xFFFFFFFF, channels * width & 0xFFFF, 8 * width)
    return encoding, bits, channels, rate_hz, channels * width, 1, struct.pack("<HHIIHH", *numbers)


def _chunk(file: BinaryIO, position: int) -> tuple[bytes, int]:
    """Name and size of the chunk at a place; no name if none begins there, or it is longer than the file."""
    head = _bytes_at(file, position, 8)
    name, size = head[:4], int.from_bytes(head[4:], "little")
    is_one = len(head) == 8 and all(0x20 <= byte < 0x7F for byte in name)
    return (name, size) if is_one and (name == b"data" or position + 8 + size <= _file_size(file)) else (b"", 0)


def _next_chunk(file: BinaryIO, begin: int, size: int) -> int:
    """Where the chunk behind one begins, as some programs leave out the pad byte of chunks of odd size."""
    return begin + size if size % 2 and _chunk(file, begin + size)[0] else begin + size + size % 2


def _find_data(file: BinaryIO, begin: int) -> int:
    """Where the data chunk is, behind one whose size is wrong; the end of the file if it cannot be found."""
    content, place = _bytes_at(file, begin, SEARCHED_BYTES), -1
    while (place := content.find(b"data", place + 1)) >= 0:
        if begin + place + 8 + _chunk(file, begin + place)[1] <= _file_size(file):
            return begin + place
    return _file_size(file)


def _end_of_chunks(path: Path, file: BinaryIO, begin: int, size: int, oddities: list[str]) -> int:
    """Where the chunks end that follow the data.

    Raises:
        UserError: there is more data.
    """
    end = _next_chunk(file, begin, size)
    if size % 2 and end == begin + size:
        oddities.append("no pad byte behind the data")
    while (chunk := _chunk(file, end))[0] and end + 8 + chunk[1] <= _file_size(file):
        if chunk[0] == b"data" and chunk[1]:
            raise UserError(
                f"{path}: a second data chunk, of {chunk[1]} bytes, which programs leave out; save it with one, in the "
                "program that wrote it, or cut it in two files"
            )
        end = _next_chunk(file, end + 8, chunk[1])
    return end


def _is_no_audio(file: BinaryIO, position: int) -> bool:
    """Whether from a place on there are but zeros, or a tag of those that players write behind the data."""
    if _bytes_at(file, position, 8).startswith(NO_AUDIO):
        return True
    file.seek(position)
    return all(block.count(0) == len(block) for block in iter(lambda: file.read(SEARCHED_BYTES), b""))


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


def flac_md5(info: AudioInfo, file: BinaryIO) -> bytes:
    """The MD5 sum of the samples in a FLAC header; zeros if it has none."""
    return _bytes_at(file, info.data_offset + 26, 16)
