"""Fetching one file by HTTP: resumed where an earlier attempt stopped, retried for a while, and nothing believed.

Proxies are those of the environment (http_proxy, https_proxy, no_proxy).
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import logging
import os
import re
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from tqdm import tqdm

from speechlvm import __version__
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import check_space, disk_errors, read_json, write_json

log = logging.getLogger(__name__)

STALL_S = 60  # without a byte
WAITS_S = (1, 2, 4, 8, 16)  # before trying again; from the first one again as soon as there is progress
PROGRESS_BYTES = 1 << 20  # less than this is none, so that a server of a few bytes at a time ends too
MAX_WAIT_S = 60
LOG_EVERY_S = 10
BLOCK_BYTES = 1 << 18
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
FIRST_BYTES = {".zip": b"PK", ".gz": b"\x1f\x8b", ".tgz": b"\x1f\x8b"}


class Unavailable(UserError):
    """The file cannot be had from this address; perhaps from another, or by hand."""


class _Temporary(Exception):
    """Something that may be different in a moment, but not before `wait_s` seconds have passed."""

    def __init__(self, reason: str, wait_s: float = 0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _NoNetwork(_Temporary):
    """The server's name is not known."""


def transfer(url: str, part: Path, size: int | None, verifiable: bool) -> None:
    """Fetches all bytes of `url` into `part`, going on after those that are there.

    Args:
        url: http or https.
        part: the file, ``<name of an archive>.part``; it stays as far as it came if an error is raised.
        size: exact number of bytes; None: what the server says.
        verifiable: whether a checksum will tell if bytes of two attempts fit together. Else they are joined only if
            the server vouches by an entity tag that it still has the same file.

    Raises:
        Unavailable: the server refuses, offers something else, or does not answer.
        UserError: there is no space.
    """
    failures = 0
    while True:
        before = _size(part)
        try:
            _attempt(url, part, size, verifiable)
            return
        except _Temporary as error:
            if isinstance(error, _NoNetwork) and not failures:  # else it was there a moment ago
                raise Unavailable(f"{url}: {error} (no network, or https_proxy is to be set)") from error
            failures = 1 if _size(part) - before >= PROGRESS_BYTES else failures + 1
            if failures > len(WAITS_S):
                raise Unavailable(f"{url}: {error} (tried {failures} times)") from error
            wait_s = max(WAITS_S[failures - 1], min(error.wait_s, MAX_WAIT_S))
            log.warning("%s: %s; %d bytes are here; trying again in %g s", url, error, _size(part), wait_s)
            time.sleep(wait_s)


def discard(part: Path) -> None:
    """Removes what `transfer` left."""
    part.unlink(missing_ok=True)
    _told_path(part).unlink(missing_ok=True)


def _attempt(url: str, part: Path, size: int | None, verifiable: bool) -> None:
    """One request.

    Raises:
        Unavailable: trying again would not help.
        _Temporary: it may.
    """
    have, (tag, told_size) = _size(part), _told(part)
    size = size or told_size
    if have and have == size:
        return
    if size and have > size:
        log.warning("%s: %d bytes, more than the expected %d; removed", part, have, size)
        discard(part)
        have = 0
    request = urllib.request.Request(url, headers={"User-Agent": f"speechlvm/{__version__}"})
    request.add_header("Accept-Encoding", "identity")
    asked = have if verifiable or tag else 0
    if asked:
        request.add_header("Range", f"bytes={asked}-")
        if not verifiable:
            request.add_header("If-Range", tag)
    try:
        with _network(url):
            response = urllib.request.build_opener(_Redirects).open(request, timeout=STALL_S)
    except urllib.error.HTTPError as error:
        reason = " ".join(f"HTTP {error.code} {error.reason}".split())
        if error.code == 416 and asked:  # range not satisfiable
            log.warning("%s: the server has nothing after its %d bytes; removed", part, have)
            discard(part)
            raise _Temporary("starting again") from error
        if error.code in TEMPORARY:
            after = error.headers.get("Retry-After", "")
            raise _Temporary(reason, int(after) if after.isdecimal() else 0) from error
        raise Unavailable(f"{url}: {reason}") from error
    with response:
        start, size = _offered(url, response, asked, size)
        blocks = _blocks(url, response)
        first = next(blocks, b"")
        if not first:  # what is here is worth more than that
            raise _Temporary("the connection ended before the first byte")
        expected = FIRST_BYTES[part.suffixes[-2]][: len(first)]
        if start == 0 and not first.startswith(expected):
            raise Unavailable(f"{url}: the server sends something else than an archive; it begins {first[:40]!r}")
        if start < have:
            log.warning("%s: cannot go on after %d bytes; starting again", url, have)
        check_space(part, size - start)
        tag = response.headers.get("ETag", "")
        # weak tags (W/"...") do not vouch for every byte
        write_json(_told_path(part), {"tag": tag if tag.startswith('"') else "", "bytes": size})
        with disk_errors(part), open(part, "ab" if start else "wb") as stream:
            _receive(url, stream, itertools.chain([first], blocks), start, size)
            stream.flush()
            os.fsync(stream.fileno())
    if _size(part) < size:
        raise _Temporary(f"the connection ended after {_size(part)} of {size} bytes")


def _offered(url: str, response: http.client.HTTPResponse, asked: int, size: int | None) -> tuple[int, int]:
    """Where the answer's bytes begin in the file, and the file's size, if that is what was asked for."""
    kind = response.headers.get_content_type()
    if kind in ("text/html", "application/xhtml+xml"):
        raise Unavailable(f"{url}: the server answers with a page for people ({kind}), not with an archive")
    if response.status == 206:
        given = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", given)
        start, total = (int(match[1]), None if match[2] == "*" else int(match[2])) if match else (-1, None)
        size = size or total
        if start != asked or size is None or total not in (None, size):
            raise Unavailable(f"{url}: the server sends '{given}'; expected 'bytes {asked}-.../{size or 'size'}'")
        return start, size
    if response.status != 200:
        raise Unavailable(f"{url}: HTTP {response.status}; expected 200")
    if size is None and response.length is None:
        raise Unavailable(f"{url}: the server does not say how many bytes there are")
    if size is not None and response.length not in (None, size):
        raise Unavailable(f"{url}: the server offers {response.length} bytes; expected {size}; so it is another file")
    return 0, size or response.length


def _blocks(url: str, response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        with _network(url):
            block = response.read1(BLOCK_BYTES)
        if not block:
            return
        yield block


def _receive(url: str, stream: IO[bytes], blocks: Iterable[bytes], start: int, size: int) -> None:
    name, position = url.rsplit("/", 1)[-1], start
    began = told = time.monotonic()
    quiet = not sys.stderr.isatty()
    with tqdm(total=size, initial=start, unit="B", unit_scale=True, desc=name, disable=quiet) as bar:
        for block in blocks:
            position += len(block)
            if position > size:
                raise Unavailable(f"{url}: the server sends more than {size} bytes; so it is another file")
            stream.write(block)
            bar.update(len(block))
            now = time.monotonic()
            if quiet and now - told >= LOG_EVERY_S:
                told, rate = now, (position - start) / (now - began)
                log.info("%s: %.1f of %.1f MB, %.2f MB/s", name, position / 1e6, size / 1e6, rate / 1e6)


@contextlib.contextmanager
def _network(url: str) -> Iterator[None]:
    """Tells what may pass from what will not."""
    try:
        yield
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise Unavailable(f"{url}: the server's certificate is not trusted: {reason.verify_message}") from error
        if isinstance(reason, socket.gaierror):
            raise _NoNetwork(reason.strerror) from error
        if isinstance(reason, TimeoutError):
            reason = f"nothing came for {STALL_S} s"
        raise _Temporary(str(reason) or type(reason).__name__) from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https, but never from https to http."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new != "https" and (old, new) != ("http", "http"):
            raise Unavailable(f"{req.full_url}: redirects to {newurl}; expected https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _told_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _told(part: Path) -> tuple[str, int | None]:
    """The entity tag and size that the server told of the file which `part` is the beginning of, if they are known."""
    try:
        told = read_json(_told_path(part))
        return told["tag"], told["bytes"]
    except UserError:
        return "", None
