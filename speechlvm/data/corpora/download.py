"""Downloadable corpora: lists of their archives, and atomic downloads.

A recipe lists its archives in ``local/archives.yaml``::

    licence: "LibriSpeech, CC BY 4.0, https://www.openslr.org/12"   # shown to the user before anything is fetched
    base: https://www.openslr.org/resources/                        # --mirror URL takes its place
    archives:
      - name: dev-clean                  # for --only
        path: 12/dev-clean.tar.gz        # relative to base; .tar.gz, .tgz or .zip
        bytes: 337926286                 # size of the archive; optional
        checksum: md5:42e2234ba48799c1f50f24a7926300a1   # or sha256:..., or unpublished
        content: LibriSpeech/dev-clean   # directory that is in this archive only
        max_unpacked_bytes: 370000000    # upper limit of the total size of its files; required free space

``content`` is a path in the archive and, when unpacked, in the target directory DIR. It is created there by one rename,
the last step: if it exists, it is complete. Files outside it, such as the LICENSE.TXT of every LibriSpeech archive, are
shared with other archives: the first one is kept, and a warning names any that differ from it.

``checksum: unpublished`` is for archives without a published checksum. They are downloaded by https only, and their
SHA-256 is shown.

Until then ``DIR/archives`` holds partial downloads (``<file>.part``; ``<file>.part.version`` is the server's ETag or
date of it), complete archives (``<file>``; those put there manually are verified and used), and unpacked files
(``<name>``). Proxies are taken from the environment (http_proxy, https_proxy, no_proxy).
"""

from __future__ import annotations

import filecmp
import http.client
import logging
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field, StringConstraints
from tqdm import tqdm

from speechlvm import __version__
from speechlvm.data.corpora.unpack import unpack
from speechlvm.utils.errors import ConfigError, UserError
from speechlvm.utils.files import atomic_directory, atomic_write, check_space, disk_errors, hash_file
from speechlvm.utils.settings import Settings, load_yaml, validated

log = logging.getLogger(__name__)

STALL_S = 60  # without a byte
WAITS_S = (1, 2, 4, 8, 16)  # between retries; reset after any progress
TEMPORARY = (408, 416, 425, 429, 500, 502, 503, 504)  # after 416, the download is restarted
LOG_EVERY_S = 10
BLOCK_BYTES = 1 << 18


class Archive(Settings):
    """One archive; for the settings, see the docstring of this module."""

    name: str
    path: Annotated[str, StringConstraints(pattern=r"\.(tar\.gz|tgz|zip)$")]
    bytes: int | None = None
    checksum: Annotated[str, StringConstraints(pattern=r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}|unpublished)$")]
    content: str
    max_unpacked_bytes: int

    @property
    def file(self) -> str:
        """Name of the archive's file."""
        return PurePosixPath(self.path).name


class ArchiveList(Settings):
    """Archives with the same base URL and licence."""

    licence: str
    base: Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#]+$")]
    archives: list[Archive] = Field(min_length=1)


def load_archives(path: Path) -> ArchiveList:
    """Loads a list of archives.

    Raises:
        ConfigError: the first error in it.
    """
    return validated(ArchiveList, load_yaml(path), str(path))


def choose(listed: ArchiveList, names: list[str], source: str) -> list[Archive]:
    """The archives with these names, or all if none is given, in the order of the list.

    Raises:
        ConfigError: unknown name.
    """
    known = [archive.name for archive in listed.archives]
    for name in names:
        if name not in known:
            raise ConfigError(f"--only {name}: not in {source}; expected some of {' '.join(known)}")
    return [archive for archive in listed.archives if not names or archive.name in names]


def download(listed: ArchiveList, archives: list[Archive], to: Path) -> None:
    """Downloads, verifies and unpacks archives; if interrupted, the same call resumes.

    Args:
        listed: the list.
        archives: those to download; none of their contents exists.
        to: the target directory.

    Raises:
        UserError: an archive is unavailable or wrong, or there is not enough space; the archives before it are
            complete.
    """
    log.info("%s: %s", " ".join(archive.name for archive in archives), listed.licence)
    packed = [archive for archive in archives if not (to / "archives" / archive.name / archive.content).exists()]
    to_come = [(archive.bytes or 0) - _size(to / "archives" / f"{archive.file}.part") for archive in packed]
    check_space(to, sum(archive.max_unpacked_bytes for archive in packed) + max([0, *to_come]))
    for archive in archives:
        file, tree = to / "archives" / archive.file, to / "archives" / archive.name
        if archive in packed:
            _fetch(archive, f"{listed.base.rstrip('/')}/{archive.path}", file)
            log.info("%s: unpacking", file)
            shutil.rmtree(tree, ignore_errors=True)
            with atomic_directory(tree) as unpacked:
                unpack(file, unpacked, archive.max_unpacked_bytes)
                if not (unpacked / archive.content).is_dir():
                    raise UserError(f"{file}: no {archive.content} in it; correct the list of archives")
        file.unlink(missing_ok=True)
        _place(tree, to, archive.content)
        log.info("%s: complete", archive.name)


def _place(tree: Path, to: Path, content: str) -> None:
    """Moves unpacked files to `to`, `content` last."""
    (to / content).parent.mkdir(parents=True, exist_ok=True)
    for path in sorted(path for path in tree.rglob("*") if path.is_file() and tree / content not in path.parents):
        target = to / path.relative_to(tree)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            path.rename(target)
        elif not filecmp.cmp(path, target, shallow=False):
            log.warning("%s: differs from the file in %s; keeping the existing one", target, tree.name)
    (tree / content).rename(to / content)
    shutil.rmtree(tree)


def _fetch(archive: Archive, url: str, file: Path) -> None:
    """Makes sure that the verified archive is at `file`."""
    if file.exists():
        wrong = _difference(archive, file)
        if wrong:
            raise UserError(f"{file}: {wrong}; remove it to download it again")
        return
    part = file.with_name(f"{file.name}.part")
    log.info("%s: downloading", url)
    _transfer(archive, url, part)
    wrong = _difference(archive, part)
    if wrong:
        _discard(part)
        raise _unavailable(url, part, f"{wrong}; removed")
    os.replace(part, file)
    _discard(part)


def _difference(archive: Archive, file: Path) -> str:
    """How a file differs from the archive in the list; "" if it is the same."""
    if archive.bytes not in (None, _size(file)):
        return f"{_size(file)} bytes, expected {archive.bytes}"
    log.info("%s: verifying %d bytes", file, _size(file))
    if archive.checksum == "unpublished":
        log.warning("%s: no published checksum; its SHA-256 is %s", file, hash_file(file))
        return ""
    algorithm = archive.checksum.partition(":")[0]
    found = f"{algorithm}:{hash_file(file, algorithm)}"
    return "" if found == archive.checksum else f"{found}, expected {archive.checksum}"


def _transfer(archive: Archive, url: str, part: Path) -> None:
    """Downloads `url` to `part`; after an error, the partial file stays there."""
    failures = 0
    while archive.bytes is None or _size(part) != archive.bytes:
        before = _size(part)
        try:
            return _attempt(archive, url, part)
        except (OSError, http.client.HTTPException) as error:
            failures = 1 if _size(part) > before else failures + 1
            if failures > len(WAITS_S):
                raise _unavailable(url, part, f"{error} (tried {failures} times)") from error
            wait_s = WAITS_S[failures - 1]
            log.warning("%s: %s; %d bytes downloaded so far; retrying in %g s", url, error, _size(part), wait_s)
            time.sleep(wait_s)


def _attempt(archive: Archive, url: str, part: Path) -> None:
    """One request: for all bytes or, if the server still has the same version, for the missing ones.

    Raises:
        OSError, HTTPException: retrying may help.
        UserError: retrying would not help.
    """
    version = _version(part).read_text(encoding="utf-8") if _version(part).exists() else ""
    have = _size(part) if version else 0
    headers = {"User-Agent": f"speechlvm/{__version__}"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    with _open(url, headers, part) as response:
        start = have if response.status == 206 else 0
        size = archive.bytes if response.length is None else start + response.length
        if archive.checksum == "unpublished" and not response.url.startswith("https:"):
            raise _unavailable(url, part, f"comes from {response.url}; without a published checksum it has to be https")
        if archive.bytes not in (None, size):
            raise _unavailable(url, part, f"the server offers {size} bytes, expected {archive.bytes}")
        if not start:
            _start_again(response, part)
        _receive(response, part, size)


def _open(url: str, headers: dict[str, str], part: Path) -> http.client.HTTPResponse:
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=STALL_S)
    except urllib.error.HTTPError as error:
        if error.code not in TEMPORARY:
            raise _unavailable(url, part, str(error)) from error
        if error.code == 416:
            _discard(part)
        raise


def _start_again(response: http.client.HTTPResponse, part: Path) -> None:
    """Empties `part` and records the server's version of the file, if there is one."""
    if _size(part):
        log.warning("%s: the file on the server may have changed; downloading its %d bytes again", part, _size(part))
    _discard(part)
    tag = response.headers.get("ETag", "W/")
    # weak tags (W/"...") do not guarantee identical bytes
    version = response.headers.get("Last-Modified") if tag.startswith("W/") else tag
    if version:
        with atomic_write(_version(part)) as stream:
            stream.write(version)


def _receive(response: http.client.HTTPResponse, part: Path, size: int | None) -> None:
    """Appends the response to `part`, which must have `size` bytes afterwards."""
    name, quiet, due = part.stem, not sys.stderr.isatty(), time.monotonic() + LOG_EVERY_S
    with (
        disk_errors(part),
        open(part, "ab") as stream,
        tqdm(total=size, initial=stream.tell(), unit="B", unit_scale=True, desc=name, disable=quiet) as bar,
    ):
        while block := response.read1(BLOCK_BYTES):
            stream.write(block)
            bar.update(len(block))
            if quiet and time.monotonic() >= due:
                due += LOG_EVERY_S
                log.info("%s: %.1f of %.1f MB", name, stream.tell() / 1e6, (size or 0) / 1e6)
    if size is not None and _size(part) < size:
        raise ConnectionError(f"the connection ended after {_size(part)} of {size} bytes")


def _unavailable(url: str, part: Path, reason: str) -> UserError:
    manually = f"download it manually to {part.with_suffix('')} and run the same command again"
    return UserError(f"{url}: {reason}; try another --mirror, or {manually}")


def _version(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _version(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
