"""Unpacking of untrusted archives: only names and contents of members are used.

Links, devices and paths outside the target are refused. No owner, mode or time is set. This holds for tar, zip and
Debian packages, and for every version of Python: tarfile's own filter accepts links, had security holes before 3.11.14,
3.12.12 and 3.13.6, and does not apply to zip.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from speechlvm.utils.errors import UserError
from speechlvm.utils.files import sync_directory

BLOCK_BYTES = 1 << 18
AR_START, AR_HEADER_BYTES = b"!<arch>\n", 60
# zipfile raises RuntimeError and its subclass NotImplementedError; both modules ValueError; gzip and bz2 also OSError
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError)


def unpack(archive: Path, target: Path, max_bytes: int) -> None:
    """Unpacks an archive into an empty directory, and flushes it to disk.

    Args:
        archive: zip if its name ends in ``.zip``, a Debian package if it ends in ``.deb``, else tar, compressed by
            bzip2 if it ends in ``.bz2``, else by gzip.
        target: the directory; incomplete after an error.
        max_bytes: upper limit of the total size of the files.

    Raises:
        UserError: a member that is not a regular file or directory, would be outside `target` or exists twice, more
            than `max_bytes`, or damage.
    """
    readers = {".zip": _zip_members, ".deb": _deb_members}
    members = readers.get(archive.suffix.lower(), _packed_tar_members)(archive)
    left = max_bytes
    try:
        for name, stream in members:
            path = target / _inside(archive, name)
            (path if stream is None else path.parent).mkdir(parents=True, exist_ok=True)
            if stream is not None:
                left -= _write(stream, path, left)
                if left < 0:
                    raise _refused(archive, name, f"more than the {max_bytes} bytes that are allowed in total")
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise _refused(archive, name, "in the archive twice, or both a file and a directory") from error
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:  # from the disk, not from a decoder
            raise
        raise UserError(
            f"{archive}: damaged, or not of the type its name says ({error or type(error).__name__}); download it again"
        ) from error
    for path in (*target.rglob("*"), target):
        sync_directory(path)  # files as well


def _write(stream: IO[bytes], path: Path, limit: int) -> int:
    """Copies to a new file, and stops if it exceeds `limit`; returns the number of bytes."""
    written = 0
    with open(path, "xb") as out:
        while written <= limit and (block := stream.read(BLOCK_BYTES)):
            written += out.write(block)
    return written


def _inside(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise _refused(archive, name, "a path outside the target directory")
    return path


def _refused(archive: Path, name: str, what: str) -> UserError:
    # a hostile name may contain control characters
    return UserError(f"{archive}: {name[:100]!a}: {what}; nothing was unpacked; do not use this archive")


def _packed_tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """As `_tar_members`."""
    with (bz2.open if archive.suffix.lower() == ".bz2" else gzip.open)(archive) as packed:
        yield from _tar_members(archive, packed)


def _tar_members(archive: Path, packed: IO[bytes]) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Name and content of each file, name and None of each directory; to be read in order."""
    # as a stream, in which no header can point backwards
    with tarfile.open(fileobj=packed, mode="r|") as tar:
        for member in tar:
            if not (member.isfile() or member.isdir()):
                raise _refused(archive, member.name, "a link or a device")
            yield member.name, tar.extractfile(member)
        while packed.read(BLOCK_BYTES):  # to the end, where the checksum is
            pass


def _deb_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """As `_tar_members`, of the files that a package installs: data.tar.xz in an ar archive."""
    with open(archive, "rb") as packed:
        if packed.read(len(AR_START)) != AR_START:
            raise ValueError("not an ar archive")
        while header := packed.read(AR_HEADER_BYTES):
            name, size = header[:16].decode("ascii").rstrip(" /"), header[48:58].decode("ascii").rstrip()
            if name == "data.tar.xz":
                with lzma.open(packed) as data:
                    yield from _tar_members(archive, data)
                return
            if name.startswith("data."):
                raise UserError(f"{archive}: {name!a}; only data.tar.xz is read here; unpack it with dpkg-deb -x")
            if not size.isdecimal():
                raise ValueError(f"size {size!a} of a member")
            packed.seek(int(size) + int(size) % 2, os.SEEK_CUR)
        raise ValueError("no data.tar.xz in it")


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """As `_tar_members`."""
    with zipfile.ZipFile(archive) as packed:
        # of a truncated archive of archives, such as Blizzard's, zipfile reads only the last complete one
        if min((member.header_offset for member in packed.infolist()), default=0):
            raise zipfile.BadZipFile("other bytes before its first member")
        for member in packed.infolist():
            # zero where the archive was not made on Unix
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(archive, member.filename, "a link or a device")
            if member.is_dir():
                yield member.filename, None
            else:
                with packed.open(member) as stream:
                    yield member.filename, stream
