"""Corpora that may be downloaded: what their archives are, and getting them complete or not at all.

A recipe lists its archives in ``local/archives.yaml``::

    licence: "LibriSpeech, CC BY 4.0, https://www.openslr.org/12"   # shown to the user before anything is fetched
    base: https://www.openslr.org/resources/                        # --mirror URL takes its place
    archives:
      - name: dev-clean                  # what --only calls it
        path: 12/dev-clean.tar.gz        # below base; .tar.gz, .tgz or .zip; its last part is the file's name
        bytes: 337926286                 # exact size of the archive
        checksum: md5:42e2234ba48799c1f50f24a7926300a1   # or sha256:..., or unpublished
        contents: [LibriSpeech/dev-clean]   # files or directories that this archive alone brings
        max_unpacked_bytes: 370000000    # upper limit of the sum of its files' bytes, and the space asked for
        max_members: 3000                # upper limit of the number of its files and directories

``contents`` are paths as they are in the archive and, unpacked, below the directory that is downloaded to. They appear
there complete, each by one rename. Files of the archive outside of them are shared with other archives, as the
LICENSE.TXT and SPEAKERS.TXT that each archive of LibriSpeech holds: the first one stays, another with other bytes
is named in a warning.

``checksum: unpublished`` is for archives of which nobody publishes one. They are then fetched by https only, ``bytes``
may be left out (the server's word is taken), and every member's CRC must be right. The SHA-256 of what came is shown,
and recorded: later downloads to the same place must bring the same.

Below the directory DIR that is downloaded to, ``DIR/archives`` holds what is in transfer (``<file>.part``), archives
that came complete (``<file>``, until unpacked; files put there by hand are verified and used), and for each name the
marker ``<name>/done.json`` with size and checksum.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator, model_validator

from speechlvm.config import load_yaml, validated
from speechlvm.errors import ConfigError
from speechlvm.settings import Settings

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

    @model_validator(mode="after")
    def _has_a_size(self) -> Archive:
        if self.bytes is None and self.checksum != UNPUBLISHED:
            raise ValueError(f"bytes: missing; only with checksum {UNPUBLISHED} the server's word is taken")
        return self

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
