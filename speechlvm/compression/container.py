"""The file of compressed utterances.

    magic                   8 bytes; ends in CR LF 0x1A LF, which a transfer as text would change
    size of the header      4 bytes, little-endian as all that follows
    header                  JSON, see `Header`
    number of utterances, size of the index     4 bytes each
    index                   of each utterance: `_ENTRY`, then its id
    CRC-32 of all that      4 bytes
    streams                 one after another

All that says where something lies is in front, so that a file that is cut gives back what is before the cut.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import scipy
import torch
from pydantic import Field, StringConstraints

from speechlvm import __version__
from speechlvm.coding import PCM_VALUES
from speechlvm.compression.tables import MOST_LATENT_BITS, least_bits
from speechlvm.data.audio import MOST_FRAMES
from speechlvm.data.kaldi.tables import unsafe_id
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import atomic_write
from speechlvm.utils.settings import Settings, check_format, checked

MAGIC = b"SLVM\r\n\x1a\n"
FORMAT = 1
_MOST_HEADER_BYTES = 1 << 20
_SIZE, _SIZES = struct.Struct("<I"), struct.Struct("<II")
_ENTRY = struct.Struct("<IIIIH")  # frames, CRC-32 of the PCM, bytes of the stream and their CRC-32, bytes of the id
_DAMAGED = "copy the file again, or compress again"


class Arithmetic(Settings):
    """What the last bits of a network's outputs depend on.

    Attributes:
        torch, numpy, scipy: versions.
        cpu: instructions that torch uses.
        threads: of torch.
    """

    torch: str
    numpy: str
    scipy: str
    cpu: str
    threads: int = Field(ge=1, le=1024)

    @staticmethod
    def here() -> Arithmetic:
        """That of this process."""
        return Arithmetic(
            torch=torch.__version__,
            numpy=np.__version__,
            scipy=scipy.__version__,
            cpu=torch.backends.cpu.get_cpu_capability(),
            threads=torch.get_num_threads(),
        )

    def __str__(self) -> str:
        return f"torch {self.torch}, numpy {self.numpy}, scipy {self.scipy}, {self.cpu}, {self.threads} threads"


class Header(Settings):
    """What the header says.

    Attributes:
        format: of the file.
        speechlvm: version that wrote it.
        kind: how utterances are coded.
        name: of the experiment, for messages; "adaptive".
        model: `codec.model_hash`.
        rate_hz: sampling rate.
        lanes: utterances that go through the network side by side.
        latent_bits: level -> bits of each dimension's bins.
        arithmetic: of the encoder.
    """

    format: int = FORMAT
    speechlvm: str = __version__
    kind: Literal["adaptive", "autoregressive", "bits-back"]
    name: str
    model: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    rate_hz: int = Field(ge=1, lt=2**31)
    lanes: int = Field(ge=1, le=4096)
    latent_bits: dict[str, list[Annotated[int, Field(ge=1, le=MOST_LATENT_BITS)]]] = {}
    arithmetic: Arithmetic


@dataclass(frozen=True)
class Entry:
    """An utterance of a file.

    Attributes:
        utterance: its id.
        frames: samples.
        pcm_crc: CRC-32 of its PCM, little-endian.
        size: bytes of its stream; 0: it is in the stream of the utterance before it, behind that.
        crc: CRC-32 of the stream.
        offset: of the stream in the file.
    """

    utterance: str
    frames: int
    pcm_crc: int
    size: int
    crc: int
    offset: int


def pcm_crc(pcm: np.ndarray) -> int:
    """CRC-32 of int16 samples."""
    return zlib.crc32(pcm.astype("<i2", copy=False).tobytes())


@contextlib.contextmanager
def write_container(
    path: Path, header: Header, utterances: Sequence[str]
) -> Iterator[Callable[[int, int, bytes], None]]:
    """Write a file, complete or not at all; gives add(frames, pcm_crc, stream), for each utterance in order."""
    text = header.model_dump_json().encode()
    names = [utterance.encode() for utterance in utterances]
    head_size = len(MAGIC) + _SIZE.size + len(text) + _SIZES.size + _index_size(names) + _SIZE.size
    entries: list[bytes] = []
    with atomic_write(path, "wb") as file:
        file.write(bytes(head_size))

        def add(frames: int, crc: int, stream: bytes) -> None:
            name = names[len(entries)]
            entry = (frames, crc, len(stream), zlib.crc32(stream), len(name))
            entries.append(_ENTRY.pack(*entry) + name)
            file.write(stream)

        yield add
        if len(entries) != len(names):
            raise ValueError(f"{len(entries)} utterances were added, not {len(names)}")
        head = MAGIC + _SIZE.pack(len(text)) + text + _SIZES.pack(len(names), _index_size(names)) + b"".join(entries)
        file.seek(0)
        file.write(head + _SIZE.pack(zlib.crc32(head)))


def _index_size(names: Sequence[bytes]) -> int:
    return sum(_ENTRY.size + len(name) for name in names)


def read_container(path: Path) -> tuple[Header, list[Entry]]:
    """Header and index of a file.

    Raises:
        UserError: it is none, is damaged, or of a newer format. A stream may still be missing or damaged.
    """
    with open(path, "rb") as file:
        left = os.fstat(file.fileno()).st_size
        read = b""

        def take(size: int) -> bytes:
            nonlocal left, read
            if size > left:
                raise UserError(f"{path}: ends within its header or index; {_DAMAGED}")
            left -= size
            read += (part := file.read(size))
            return part

        if left < len(MAGIC) or take(len(MAGIC)) != MAGIC:
            raise UserError(f"{path}: not a file of compressed utterances, or one that was copied as text")
        text = take(min(_SIZE.unpack(take(_SIZE.size))[0], _MOST_HEADER_BYTES))
        count, index_size = _SIZES.unpack(take(_SIZES.size))
        index = take(index_size)
        found = zlib.crc32(read)
        if _SIZE.unpack(take(_SIZE.size))[0] != found:
            raise UserError(f"{path}: its header or index is damaged (CRC-32); {_DAMAGED}")
        offset = file.tell()
    header, entries = _read_header(path, text), _read_index(path, count, index, offset)
    if (more := left - sum(entry.size for entry in entries)) > 0:
        raise UserError(f"{path}: {more} bytes more than its index says; {_DAMAGED}")
    return header, entries


def _read_header(path: Path, text: bytes) -> Header:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: its header is not JSON ({error}); {_DAMAGED}") from error
    if isinstance(value, dict):
        check_format(value, FORMAT, str(path))
    return checked(Header, value, str(path))


def _read_index(path: Path, count: int, index: bytes, offset: int) -> list[Entry]:
    entries, place, chain = [], 0, 0
    while place + _ENTRY.size <= len(index):
        frames, pcm, size, crc, name_size = _ENTRY.unpack_from(index, place)
        place += _ENTRY.size + name_size
        name = index[place - name_size : place].decode(errors="replace")
        if reason := unsafe_id(name):
            raise UserError(f"{path}: {reason}")
        chain = size or chain
        if frames > min(MOST_FRAMES, 8 * chain / least_bits(PCM_VALUES)):
            raise UserError(f"{path}: {name}: {frames} frames are not in {chain} bytes; {_DAMAGED}")
        entries.append(Entry(name, frames, pcm, size, crc, offset))
        offset += size
    if place != len(index) or not 0 < count == len(entries) == len({entry.utterance for entry in entries}):
        raise UserError(f"{path}: its index does not hold {count} utterances; {_DAMAGED}")
    return entries


def read_stream(path: Path, entry: Entry) -> bytes:
    """The stream of an utterance.

    Raises:
        UserError: it is damaged, or the file ends before its end.
    """
    with open(path, "rb") as file:
        there = max(0, os.fstat(file.fileno()).st_size - entry.offset)
        if there < entry.size:
            raise UserError(f"{path}: {entry.utterance}: the file ends after {there} of {entry.size} bytes; {_DAMAGED}")
        file.seek(entry.offset)
        stream = file.read(entry.size)
    if zlib.crc32(stream) != entry.crc:
        raise UserError(f"{path}: {entry.utterance}: its {entry.size} bytes are damaged (CRC-32); {_DAMAGED}")
    return stream


def check_pcm(path: Path, header: Header, entry: Entry, pcm: np.ndarray) -> None:
    """Check that an utterance is what was compressed.

    Raises:
        UserError: it is not, as the arithmetic differs.
    """
    if pcm_crc(pcm) != entry.pcm_crc:
        here = Arithmetic.here()
        raise UserError(
            f"{path}: {entry.utterance}: decoded to other samples (CRC-32), as arithmetic differs; compressed with "
            f"{header.arithmetic}; here: {here if here != header.arithmetic else 'the same, on another processor'}"
        )
