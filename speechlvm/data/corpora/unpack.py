"""Unpacking archives that nobody should have to trust: each member is checked here before any byte of it is written.

What Python's own filters for tar files let through has differed between its releases, and zip files have none. Of an
archive only names and bytes of plain files and directories are taken, never owners, modes or links.
"""

from __future__ import annotations

import bz2
import filecmp
import gzip
import os
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from speechlvm.utils.errors import UserError
from speechlvm.utils.files import disk_errors, sync_directory

BLOCK_BYTES = 1 << 18
MAX_HEADER_BYTES = 1 << 20
MAX_NAME_BYTES, MAX_PATH_BYTES = 255, 1024
TAR_BYTES_PER_MEMBER = 4096  # header, long name and padding
END_OF_TAR = bytes(tarfile.BLOCKSIZE)


class Member(NamedTuple):
    """A plain file or directory of an archive; `blocks` is to be read before the next member is asked for."""

    name: str
    is_directory: bool
    blocks: Iterator[bytes]


def unpack(archive: Path, target: Path, max_bytes: int, max_members: int) -> None:
    """Unpacks an archive (zip, else tar with bzip2 or gzip) into a new directory; all is on disk then.

    Args:
        archive: the file; its name ends in ``.zip`` or ``.bz2`` if it is such a one.
        target: the new directory. If an error is raised, it holds a part, to be removed.
        max_bytes: upper limit of the sum of the files' bytes.
        max_members: upper limit of the number of files and directories.

    Raises:
        UserError: a member that is no plain file or directory, would lie outside the target, is there twice or on some
            file systems would be, more than the limits, damage, or no space.
    """
    if archive.suffix.lower() == ".zip":
        members = _read_zip(archive)
    else:
        members = _read_tar(archive, max_bytes + TAR_BYTES_PER_MEMBER * max_members + MAX_HEADER_BYTES)
    tree = _Tree(archive, target, max_bytes, max_members)
    for member in _readable(archive, members):
        tree.add(member)
    tree.sync()


def move_into(tree: Path, target: Path, contents: list[str]) -> list[str]:
    """Moves an unpacked tree below `target`; if it was interrupted, doing it again finishes it.

    Args:
        tree: what `unpack` made.
        target: directory on the same file system, where other archives may have been unpacked too.
        contents: files and directories that come from this archive alone; each is moved by one rename.

    Returns:
        The other files that were left because `target` has one of this name with other bytes.

    Raises:
        UserError: something that is not from this archive is in the way.
    """
    differing = []
    for name in contents:
        if (tree / name).exists():
            if os.path.lexists(target / name):
                raise UserError(f"{target / name}: in the way of what was unpacked; move it away and run again")
            _move(tree / name, target / name)
    for source in sorted(path for path in tree.rglob("*") if path.is_file()):
        name = source.relative_to(tree)
        if not os.path.lexists(target / name):
            _move(source, target / name)
        elif not (target / name).is_file() or not filecmp.cmp(source, target / name, shallow=False):
            differing.append(str(name))
    return differing


def _move(source: Path, target: Path) -> None:
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, target)
        sync_directory(target.parent)


class _Tree:
    """The directory that members are written into, and what it has so far."""

    def __init__(self, archive: Path, target: Path, max_bytes: int, max_members: int) -> None:
        self.archive, self.target, self.max_bytes, self.max_members = archive, target, max_bytes, max_members
        self.bytes = 0
        self.directories: dict[str, str] = {}
        self.files: dict[str, str] = {}
        with disk_errors(target):
            target.mkdir(parents=True)

    def add(self, member: Member) -> None:
        parts = self._parts(member.name)
        names = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
        for name in names if member.is_directory else names[:-1]:
            if self._register(name, self.directories, self.files):
                with disk_errors(self.target / name):
                    (self.target / name).mkdir()
        if not member.is_directory:
            if not names:
                self.refuse(member.name, "a file without a name")
            if not self._register(names[-1], self.files, self.directories):
                self.refuse(names[-1], "in the archive twice")
            self._write(self.target / names[-1], member.blocks)

    def _parts(self, name: str) -> list[str]:
        parts = [part for part in name.removesuffix("/").split("/") if part != "."]
        if name.startswith("/"):
            self.refuse(name, "an absolute path")
        if ".." in parts or "" in parts:
            self.refuse(name, "a path that leads elsewhere")
        if "\\" in name or not name.isprintable():
            self.refuse(name, "a backslash or a character that is not printable in its name")
        if len(name.encode()) > MAX_PATH_BYTES or any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
            self.refuse(name, f"a path of more than {MAX_PATH_BYTES} bytes or a name of more than {MAX_NAME_BYTES}")
        return parts

    def _register(self, name: str, same_kind: dict[str, str], other_kind: dict[str, str]) -> bool:
        key = _key(name)
        if key in other_kind:
            self.refuse(name, "both a file and a directory")
        known = same_kind.get(key)
        if known not in (None, name):
            self.refuse(name, f"the same as {known!a} where file systems do not distinguish case or accents")
        same_kind[key] = name
        if len(self.files) + len(self.directories) > self.max_members:
            self.refuse(
                name, f"more than the {self.max_members} files and directories that the list of archives allows"
            )
        return known is None

    def _write(self, path: Path, blocks: Iterator[bytes]) -> None:
        with disk_errors(path, path), open(path, "xb") as stream:
            for block in _readable(self.archive, blocks):
                self.bytes += len(block)
                if self.bytes > self.max_bytes:
                    name = str(path.relative_to(self.target))
                    self.refuse(name, f"more than the {self.max_bytes} bytes in all that the list of archives allows")
                stream.write(block)

    def sync(self) -> None:
        with disk_errors(self.target):
            for name in self.files.values():  # after writing, as the system has written most of it by then
                with open(self.target / name, "rb") as stream:
                    os.fsync(stream.fileno())
            for name in (*self.directories.values(), "."):
                sync_directory(self.target / name)

    def refuse(self, name: str, what: str) -> None:
        _refuse(self.archive, name, what)


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _refuse(archive: Path, name: str, what: str) -> None:
    shown = ascii(name[:100])  # a hostile name may hold control characters
    raise UserError(f"{archive}: {shown}: {what}; nothing was unpacked; do not use this archive")


def _readable(archive: Path, items: Iterator) -> Iterator:
    """The same items; whatever goes wrong in reading them becomes one line."""
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except (UserError, MemoryError):
            raise
        except Exception as error:  # decoders of damaged or hostile data raise almost anything
            raise UserError(
                f"{archive}: damaged, or not the archive its name says ({error or type(error).__name__}); remove it to "
                "have it downloaded again"
            ) from error
        yield item


def _read_tar(archive: Path, limit: int) -> Iterator[Member]:
    with (bz2 if archive.suffix.lower() == ".bz2" else gzip).open(archive) as packed:
        stream = _Forward(packed, archive, limit)
        tar = tarfile.TarFile(fileobj=stream)
        while (member := tar.next()) is not None:
            tar.members.clear()
            plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and member.sparse is None
            if not plain and not member.isdir():
                _refuse(archive, member.name, "a link, a device or of another kind that is neither file nor directory")
            stream.seek(member.offset_data)
            yield Member(member.name, member.isdir(), stream.blocks(member.size if plain else 0))
        # tarfile takes a header that it cannot read for the end
        if stream.last != END_OF_TAR:
            raise tarfile.ReadError("its end is missing")
        while block := stream.read(BLOCK_BYTES):  # to the end, so that the checksum of gzip is looked at
            if block.strip(b"\0"):
                raise tarfile.ReadError("data after its end")


class _Forward:
    """What tarfile reads: counted, of bounded size, and never backwards, whatever the headers say."""

    def __init__(self, stream: IO[bytes], archive: Path, limit: int) -> None:
        self.stream, self.archive, self.limit = stream, archive, limit
        self.position, self.last = 0, b""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        self.last = self.stream.read(size)
        self.position += len(self.last)
        if self.position > self.limit:
            raise tarfile.ReadError(f"more than {self.limit} bytes unpacked")
        return self.last

    def blocks(self, size: int) -> Iterator[bytes]:
        end = self.position + size
        while self.position < end:
            block = self.read(min(BLOCK_BYTES, end - self.position))
            if not block:
                raise EOFError("it ends early")
            yield block

    def seek(self, position: int) -> None:
        if position < self.position:
            raise tarfile.ReadError("a header that leads backwards")
        for _ in self.blocks(position - self.position):
            pass

    def tell(self) -> int:
        return self.position


def _read_zip(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as packed:
        # What was cut within an archive that it holds would be taken for that archive.
        if min((member.header_offset for member in packed.infolist()), default=0):
            raise zipfile.BadZipFile("other bytes before its first member")
        for member in packed.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)  # zero where the archive was not made on Unix
            if kind not in (0, stat.S_IFDIR if member.is_dir() else stat.S_IFREG):
                _refuse(archive, member.filename, "a link, a device or of another kind than its name says")
            if member.is_dir() and member.file_size:
                _refuse(archive, member.filename, "a directory with content of its own")
            if "\0" in member.orig_filename:
                _refuse(archive, member.orig_filename, "a zero byte in its name")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                _refuse(archive, member.filename, f"compressed by method {member.compress_type}; expected 0 or 8")
            with packed.open(member) as stream:
                yield Member(member.filename, member.is_dir(), _zip_blocks(stream, member.file_size))


def _zip_blocks(stream: IO[bytes], size: int) -> Iterator[bytes]:
    while block := stream.read(BLOCK_BYTES):  # to the end, so that the CRC is looked at
        size -= len(block)
        yield block
    if size:
        raise zipfile.BadZipFile("a file ends early")
