"""Corpora that may be downloaded: what their archives are, and getting them complete or not at all.

A recipe lists its archives in ``local/archives.yaml``::

    licence: "LibriSpeech, CC BY 4.0, https://www.openslr.org/12"   # shown to the user before anything is fetched
    base: https://www.openslr.org/resources/                        # --mirror URL takes its place
    archives:
      - name: dev-clean                  # what --only calls it
        path: 12/dev-clean.tar.gz        # below base; .tar.gz, .tgz or .zip; its last part is the file's name
        bytes: 337926286                 # exact size of the archive; left out: what the server says
        checksum: md5:42e2234ba48799c1f50f24a7926300a1   # or sha256:..., or unpublished
        contents: [LibriSpeech/dev-clean]   # files or directories that this archive alone brings
        max_unpacked_bytes: 370000000    # upper limit of the sum of its files' bytes, and the space asked for
        max_members: 3000                # upper limit of the number of its files and directories

``contents`` are paths as they are in the archive and, unpacked, below the directory that is downloaded to. They appear
there complete, each by one rename. Files of the archive outside of them are shared with other archives, as the
LICENSE.TXT and SPEAKERS.TXT that each archive of LibriSpeech holds: the first one stays, another with other bytes
is named in a warning.

``checksum: unpublished`` is for archives of which nobody publishes one. They are then fetched by https only, and every
member's CRC must be right. The SHA-256 of what came is shown, and recorded: later downloads to the same place must
bring the same.

Below the directory DIR that is downloaded to, ``DIR/archives`` holds what is in transfer (``<file>.part``), archives
that came complete (``<file>``, until unpacked; files put there by hand are verified and used), and for each name the
marker ``<name>/done.json`` with size and checksum.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import Field, StringConstraints, field_validator, model_validator

from speechlvm.data.corpora.transfer import Unavailable, discard, transfer
from speechlvm.data.corpora.unpack import move_into, unpack
from speechlvm.utils.errors import ConfigError, UserError
from speechlvm.utils.files import check_space, hash_file, mark_done, read_json, sync_directory
from speechlvm.utils.settings import Settings, load_yaml, validated

log = logging.getLogger(__name__)

UNPUBLISHED = "unpublished"
DIGITS = {"md5": 32, "sha256": 64}


class Archive(Settings):
    """One archive; the docstring of this module says what the settings mean."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    path: Annotated[
        str, StringConstraints(pattern=r"^([A-Za-z0-9~%+_-][A-Za-z0-9.~%+_-]*/)*[A-Za-z0-9][A-Za-z0-9._-]*$")
    ]
    bytes: int | None = Field(default=None, gt=0, le=10**13)
    checksum: str
    contents: list[str] = Field(min_length=1)
    max_unpacked_bytes: int = Field(gt=0, le=10**13)
    max_members: int = Field(gt=0, le=10**8)

    @field_validator("path")
    @classmethod
    def _can_be_unpacked(cls, path: str) -> str:
        if not path.endswith((".tar.gz", ".tgz", ".zip")):
            raise ValueError("expected a name that ends in .tar.gz, .tgz or .zip")
        return path

    @field_validator("checksum")
    @classmethod
    def _is_a_checksum(cls, checksum: str) -> str:
        algorithm, _, digits = checksum.partition(":")
        if checksum != UNPUBLISHED and not (
            algorithm in DIGITS and re.fullmatch(rf"[0-9a-f]{{{DIGITS[algorithm]}}}", digits)
        ):
            raise ValueError(f"expected md5: and 32, or sha256: and 64 digits 0-9 a-f, or {UNPUBLISHED}")
        return checksum

    @field_validator("contents")
    @classmethod
    def _lie_below(cls, contents: list[str]) -> list[str]:
        for name in contents:
            parts = name.split("/")
            if "" in parts or "." in parts or ".." in parts or parts[0] == "archives":
                raise ValueError(f"'{name}': expected a path of names with single slashes, not below archives")
        return contents

    @property
    def file(self) -> str:
        """Name of the archive's file."""
        return PurePosixPath(self.path).name


class ArchiveList(Settings):
    """Archives of one place and licence."""

    licence: Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\n]+$")]
    base: Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#]+$")]
    archives: list[Archive] = Field(min_length=1)

    @model_validator(mode="after")
    def _nothing_twice(self) -> ArchiveList:
        for what in ("name", "file"):
            values = [getattr(archive, what).lower() for archive in self.archives]
            for value in values:
                if values.count(value) > 1:
                    raise ValueError(f"two archives have the {what} '{value}'")
        owned = sorted(PurePosixPath(name).parts for archive in self.archives for name in archive.contents)
        for one, other in zip(owned, owned[1:], strict=False):
            if other[: len(one)] == one:
                raise ValueError(f"contents '{'/'.join(one)}' and '{'/'.join(other)}' lie in each other")
        return self


def load_archives(path: Path) -> ArchiveList:
    """The archives that a file lists.

    Raises:
        ConfigError: the first thing that is wrong in it.
    """
    return validated(ArchiveList, load_yaml(path), str(path))


def choose(listed: ArchiveList, names: list[str], source: str) -> list[Archive]:
    """The archives of these names, or all of them if none is given, in the order of the list.

    Raises:
        ConfigError: there is no archive of a name.
    """
    known = [archive.name for archive in listed.archives]
    for name in names:
        if name not in known:
            raise ConfigError(f"--only {name}: not in {source}; expected some of {' '.join(known)}")
    return [archive for archive in listed.archives if not names or archive.name in names]


def is_complete(archive: Archive, to: Path) -> bool:
    """Whether what the archive contains is there, from this archive, and nothing is left to do."""
    places = _Places(archive, to)
    there = all((to / name).exists() for name in archive.contents)
    return there and _record(archive, places.marker) is not None and not (places.staging / "done.json").exists()


def download(listed: ArchiveList, archives: list[Archive], to: Path, keep: bool) -> None:
    """Fetches, verifies and unpacks archives; interrupted at any moment, the same call finishes it.

    Args:
        listed: the list that they are of.
        archives: those to have; none of them complete.
        to: the directory below which their contents will be.
        keep: whether the archives stay when they have been unpacked.

    Raises:
        UserError: an archive cannot be had or is not what was promised, something is in the way, or there is no space;
            the archives before it are complete.
    """
    missing = [archive for archive in archives if _record(archive, _Places(archive, to).staging) is None]
    for archive in missing:
        for name in archive.contents:
            if os.path.lexists(to / name):
                raise UserError(
                    f"{to / name}: is in the way of {archive.name}, which is not marked as complete; move it away to "
                    "have it downloaded, or leave the download out if you know it to be complete"
                )
    log.info("%s: %s", " ".join(archive.name for archive in archives), listed.licence)
    transfers = [_Places(archive, to).bytes_to_come(archive) for archive in missing]
    packed = sum(transfers) if keep else max(transfers, default=0)
    check_space(to, packed + sum(archive.max_unpacked_bytes for archive in missing))
    for archive in archives:
        _get(archive, f"{listed.base.rstrip('/')}/{archive.path}", to, keep)


class _Places:
    """Where an archive and what is known about it are."""

    def __init__(self, archive: Archive, to: Path) -> None:
        self.file = to / "archives" / archive.file
        self.part = self.file.with_name(f"{archive.file}.part")
        self.marker = to / "archives" / archive.name
        self.staging = self.marker / "unpacked"

    def bytes_to_come(self, archive: Archive) -> int:
        if self.file.exists() or archive.bytes is None:
            return 0
        return max(0, archive.bytes - (self.part.stat().st_size if self.part.exists() else 0))


def _record(archive: Archive, directory: Path) -> dict[str, Any] | None:
    """What `directory` is marked as complete with, if that is this archive."""
    if not (directory / "done.json").exists():
        return None
    record = read_json(directory / "done.json")
    same = archive.bytes in (None, record["bytes"]) and archive.checksum in (UNPUBLISHED, record["checksum"])
    return record if same else None


def _get(archive: Archive, url: str, to: Path, keep: bool) -> None:
    places = _Places(archive, to)
    record, tree = _record(archive, places.staging), places.staging / "files"
    if record is None:
        record = _have(archive, url, places)
        log.info("%s: unpacking", places.file)
        shutil.rmtree(places.staging, ignore_errors=True)
        try:
            unpack(places.file, tree, archive.max_unpacked_bytes, archive.max_members)
            for name in archive.contents:
                if not (tree / name).exists():
                    raise UserError(f"{places.file}: there is no {name} in it; correct the list of archives")
            mark_done(places.staging, record)
        except BaseException:  # an interrupt too
            shutil.rmtree(places.staging, ignore_errors=True)
            raise
    for name in move_into(tree, to, archive.contents):
        log.warning("%s: has other bytes in %s; the one that is there stays", to / name, archive.file)
    if not keep:
        places.file.unlink(missing_ok=True)
    # the mark of staging goes last: with none of the two, the contents would seem to be somebody else's
    shutil.rmtree(tree, ignore_errors=True)
    mark_done(places.marker, record)
    shutil.rmtree(places.staging)
    log.info("%s: complete", archive.name)


def _have(archive: Archive, url: str, places: _Places) -> dict[str, Any]:
    """The record of the archive's file, which is there and right on return, fetched if need be."""
    if places.file.exists():
        try:
            return _verify(archive, places.file, places)
        except _Wrong as error:
            raise UserError(f"{error}; remove it to have it downloaded") from error
    by_hand = f"fetch {url} by hand, put it at {places.file} and run the same command again"
    if archive.checksum == UNPUBLISHED and not url.startswith("https:"):
        raise UserError(f"{url}: without a published checksum only https is good enough; give --mirror, or {by_hand}")
    log.info("%s: fetching", url)
    while True:
        resumed = places.part.exists()
        try:
            transfer(url, places.part, archive.bytes, archive.checksum != UNPUBLISHED)
            record = _verify(archive, places.part, places)
        except Unavailable as error:
            raise UserError(f"{error}; try another --mirror, or {by_hand}") from error
        except _Wrong as error:
            discard(places.part)
            if not resumed:
                raise UserError(f"{error}; removed; try another --mirror, or {by_hand}") from error
            log.warning("%s; removed; starting again, as it was put together from several runs", error)
        else:
            os.replace(places.part, places.file)
            sync_directory(places.file.parent)
            discard(places.part)
            return record


class _Wrong(UserError):
    """A file is not the archive it should be."""


def _verify(archive: Archive, file: Path, places: _Places) -> dict[str, Any]:
    """The record of a file that is the archive.

    Raises:
        _Wrong: it is not.
    """
    size, expected, source = file.stat().st_size, archive.checksum, "published"
    if archive.bytes not in (None, size):
        raise _Wrong(f"{file}: {size} bytes, expected {archive.bytes}")
    if expected == UNPUBLISHED:
        earlier = _record(archive, places.marker)
        expected = earlier["checksum"] if earlier else None
        source = f"of an earlier download, recorded in {places.marker / 'done.json'}"
    algorithm = expected.partition(":")[0] if expected else "sha256"
    log.info("%s: verifying %d bytes", file, size)
    found = f"{algorithm}:{hash_file(file, algorithm)}"
    if expected is None:
        log.warning("%s: nobody publishes its checksum; it is %s, which is recorded", file, found)
    elif found != expected:
        raise _Wrong(f"{file}: {found}, expected {expected} ({source})")
    return {"bytes": size, "checksum": found}
