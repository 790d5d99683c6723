import contextlib
import gzip
import hashlib
import io
import json
import logging
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from speechlvm.bin.download import main
from speechlvm.data.corpora import download, transfer
from speechlvm.data.corpora.download import load_archives
from speechlvm.utils.errors import ConfigError, UserError
from speechlvm.utils.lock import locked

ETAG = '"v1"'
SHARED = {"LibriSpeech/README.TXT": b"read me", "LibriSpeech/SPEAKERS.TXT": b"; id | sex"}


def noise(size, seed=0):
    return random.Random(seed).randbytes(size)


def pack_tar(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return gzip.compress(stream.getvalue(), 1, mtime=0)


def pack_zip(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for name, data in files.items():
            packed.writestr(zipfile.ZipInfo(name), data)
    return stream.getvalue()


FILES = {"a": {"LibriSpeech/a/1.flac": noise(200_000), **SHARED}, "b": {"LibriSpeech/b/2.flac": noise(3000), **SHARED}}
PACKED = {name: pack_tar(files) for name, files in FILES.items()}
ZIPPED = pack_zip({"subjects/01/01.asf": b"skeleton", "subjects/01/01_01.amc": noise(150_000)})
WEB = {"/12/a.tar.gz": PACKED["a"], "/12/b.tar.gz": PACKED["b"], "/all.zip": ZIPPED}


class Handler(BaseHTTPRequestHandler):
    """Honest, with ranges and entity tags, unless the server's `tricks` has something for this request."""

    def do_GET(self):
        server = self.server
        server.seen.append((self.path, dict(self.headers)))
        path = "/" + self.path.split("/", 3)[3] if "://" in self.path else self.path  # asked as a proxy
        trick = server.tricks.pop(0) if server.tricks else None
        if trick:
            return trick(self, server.web.get(path, b""))
        if path not in server.web:
            return self.answer(404, b"no such file", {"Content-Type": "text/html"})
        return self.honest(server.web[path])

    def do_CONNECT(self):
        """As a proxy of https, which sees addresses only."""
        self.server.seen.append((self.path, dict(self.headers)))
        host, port = self.path.split(":")
        with socket.create_connection((host, int(port))) as far:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=relay, args=(far, self.connection), daemon=True)
            back.start()
            relay(self.connection, far)
            back.join(5)

    def honest(self, data, tag=ETAG, stop=None):
        start, wanted = 0, self.headers.get("Range")
        if wanted and self.headers.get("If-Range", tag) == tag:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
        headers = {"ETag": tag, "Content-Type": "application/gzip", "Content-Length": str(len(data) - start)}
        if not start:
            return self.answer(200, data[:stop], headers)
        if start >= len(data):
            return self.answer(416, b"", {})
        return self.answer(
            206, data[start:stop], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}", **headers}
        )

    def answer(self, status, body, headers, length=True):
        self.send_response(status)
        if length:
            headers = {"Content-Length": str(len(body)), **headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def relay(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def cut(after):
    """The connection ends early."""
    return lambda handler, data: handler.honest(data, stop=after)


def stall(after):
    """Nothing comes any more, on a connection that stays open."""

    def trick(handler, data):
        handler.honest(data, stop=after)
        handler.wfile.flush()
        handler.server.stop.wait(10)

    return trick


def status(code, **headers):
    return lambda handler, data: handler.answer(code, b"sorry", {k.replace("_", "-"): v for k, v in headers.items()})


def page(kind="text/html; charset=utf-8", length=True, size=300):
    """An error page with status 200."""
    body = b"<!DOCTYPE html><p>Log in to this network".ljust(size, b".")
    return lambda handler, data: handler.answer(200, body, {"Content-Type": kind}, length)


def redirect(url):
    return lambda handler, data: handler.answer(302, b"", {"Location": url})


def no_ranges(handler, data):
    handler.answer(200, data, {})


def changed(handler, data):
    """As a server on which the file has been replaced: as long, but another."""
    handler.honest(bytes(reversed(data)), tag='"v2"')


def partial(content_range, body=b"x" * 100):
    return lambda handler, data: handler.answer(206, body, {"Content-Range": content_range})


@pytest.fixture
def serve():
    """serve(web=WEB, tricks=[...], tls=None) -> a server in a thread, with .seen requests and a .url."""
    servers = []

    def start(tricks=(), web=WEB, tls=None):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.web, server.tricks, server.seen, server.stop = dict(web), list(tricks), [], threading.Event()
        server.handle_error = lambda *_: None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        server.url = f"{'https' if tls else 'http'}://localhost:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop.set()
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(transfer, "STALL_S", 0.3)
    monkeypatch.setattr(transfer, "WAITS_S", (0, 0, 0))
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def archive(name, packed=None, /, **changes):
    data = PACKED[name] if packed is None else packed
    value = {
        "name": name,
        "path": f"12/{name}.tar.gz",
        "bytes": len(data),
        "checksum": f"md5:{hashlib.md5(data).hexdigest()}",
        "contents": [f"LibriSpeech/{name}"],
        "max_unpacked_bytes": 300_000,
        "max_members": 10,
        **changes,
    }
    return {key: item for key, item in value.items() if item is not None}


UNPUBLISHED = archive("all", ZIPPED, path="all.zip", checksum="unpublished", contents=["subjects/01"])


class Place:
    """A list of archives, a directory to download to, and the program."""

    def __init__(self, root, server, archives):
        self.list, self.to, self.server = root / "archives.yaml", root / "to here", server
        self.write(archives, server.url)

    def write(self, archives, base):
        self.list.write_text(yaml.safe_dump({"licence": "CC BY 4.0, at x.org", "base": base, "archives": archives}))

    def arguments(self, *more):
        return ["--archives", str(self.list), "--to", str(self.to), *more]

    def run(self, *more):
        assert main(self.arguments(*more)) == 0

    def fails(self, match, *more):
        with pytest.raises(UserError, match=match) as error:
            main(self.arguments(*more))
        assert "\n" not in str(error.value)
        return str(error.value)

    def files(self):
        return {str(p.relative_to(self.to)): p.read_bytes() for p in sorted(self.to.rglob("*")) if p.is_file()}

    def archives(self):
        """What is in transfer or kept."""
        place = self.to / "archives"
        names = (p.name for p in place.glob("*") if p.is_file() and p.name != "lock")
        return sorted(name for name in names if not name.endswith(".part.json"))

    def corpus(self):
        return {name: data for name, data in self.files().items() if not name.startswith("archives/")}


@pytest.fixture
def place(tmp_path, serve):
    """place(tricks, *names, **changes of all archives) -> Place"""

    def make(tricks=(), *names, **changes):
        return Place(tmp_path, serve(tricks), [archive(name, **changes) for name in names or ["a"]])

    return make


def test_archives_of_one_corpus_are_joined_and_a_complete_copy_is_left_alone(place, capsys):
    here = place([], "a", "b")
    here.run()
    assert here.corpus() == {**FILES["a"], **FILES["b"]}
    assert here.archives() == []
    for name in "ab":
        record = {"bytes": len(PACKED[name]), "checksum": archive(name)["checksum"]}
        assert json.loads((here.to / "archives" / name / "done.json").read_text()) == record
    assert "a b: CC BY 4.0, at x.org" in capsys.readouterr().out
    before, asked = here.files(), len(here.server.seen)
    here.run()
    assert here.files() == before and len(here.server.seen) == asked == 2
    assert capsys.readouterr().out == f"{here.to}: a: complete\n{here.to}: b: complete\n"


def test_only_and_keep(place):
    here = place([], "a", "b")
    here.run("--only", "b", "--keep")
    assert here.corpus() == FILES["b"] and here.archives() == ["b.tar.gz"]
    here.run("--only", "b a")
    assert here.corpus() == {**FILES["a"], **FILES["b"]} and here.archives() == ["b.tar.gz"]
    assert [path for path, _ in here.server.seen] == ["/12/b.tar.gz", "/12/a.tar.gz"]
    with pytest.raises(ConfigError, match=r"--only c: not in .*; expected some of a b$"):
        here.run("--only", "a c")


def test_what_was_removed_comes_again(place):
    here = place()
    here.run()
    shutil.rmtree(here.to / "LibriSpeech/a")
    here.run()
    assert here.corpus() == FILES["a"] and len(here.server.seen) == 2


@pytest.mark.parametrize("trick", [cut(100_000), stall(100_000)])
def test_an_interrupted_transfer_goes_on_where_it_stopped(place, trick):
    here = place([trick])
    here.run()
    assert here.corpus() == FILES["a"]
    assert [headers.get("Range") for _, headers in here.server.seen] == [None, "bytes=100000-"]


def test_stalls_before_the_answer(place, capsys):
    here = place([stall(0), lambda handler, data: handler.server.stop.wait(10)])
    here.run()
    assert capsys.readouterr().out.count("nothing came for 0.3 s; 0 bytes are here; trying again in 0 s") == 2
    assert here.corpus() == FILES["a"] and len(here.server.seen) == 3


def test_a_server_that_is_busy_for_a_moment(place, monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(transfer, "WAITS_S", (1, 2, 4))
    here = place([status(503), status(429, Retry_After="7"), status(500, Retry_After="86400")])
    here.run()
    assert here.corpus() == FILES["a"] and len(here.server.seen) == 4
    assert waits == [1, 7, transfer.MAX_WAIT_S]


def test_it_gives_up_when_nothing_helps_and_keeps_what_came(place):
    here = place([cut(50_000)] + [status(503)] * 3)
    message = here.fails(r"HTTP 503 Service Unavailable \(tried 4 times\); try another --mirror")
    assert f"fetch {here.server.url}/12/a.tar.gz by hand, put it at {here.to}/archives/a.tar.gz" in message
    assert here.archives() == ["a.tar.gz.part"] and here.corpus() == {}
    here.run()
    assert here.server.seen[-1][1]["Range"] == "bytes=50000-"
    assert here.corpus() == FILES["a"] and here.archives() == []


def test_progress_starts_the_count_of_attempts_again(place, monkeypatch):
    monkeypatch.setattr(transfer, "PROGRESS_BYTES", 10_000)
    here = place([cut(n) for n in range(20_000, 180_000, 20_000)])
    here.run()
    assert here.corpus() == FILES["a"] and len(here.server.seen) == 9


def test_a_few_bytes_at_a_time_end(place):
    here = place([cut(n) for n in range(1, 100)])
    here.fails("tried 4 times")
    assert len(here.server.seen) == 4 and here.archives() == ["a.tar.gz.part"]


def test_no_server(place):
    here = place()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        assert f"fetch {url}/12/a.tar.gz by hand" in here.fails("refused.*tried 4 times", "--mirror", url)
    assert here.files().keys() == {"archives/lock"} and here.server.seen == []


@pytest.mark.parametrize("tricks", [[], [cut(1000)]])
def test_no_network_is_told_at_once_but_waited_for_if_it_was_there(place, monkeypatch, tricks):
    here, resolve = place(tricks), socket.getaddrinfo

    def unknown(*arguments, **options):
        if len(here.server.seen) < len(tricks):
            return resolve(*arguments, **options)
        waits.append("asked")
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    waits = []
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    message = here.fails("tried 4 times" if tricks else "not known .no network")
    assert f"fetch {here.server.url}/12/a.tar.gz by hand, put it at {here.to}/archives/a.tar.gz" in message
    assert len(waits) == (3 if tricks else 1)


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_refusals_are_not_repeated(place, code):
    here = place([status(code)])
    assert "by hand" in here.fails(f"12/a.tar.gz: HTTP {code} ")
    assert len(here.server.seen) == 1


@pytest.mark.parametrize(
    ("trick", "match"),
    [
        (page(), "a page for people"),
        (page(size=len(PACKED["a"])), "a page for people"),
        (page("application/gzip"), "offers 300 bytes; expected"),
        (page("application/gzip", size=len(PACKED["a"])), "something else than an archive; it begins b'<!DOCTYPE"),
        (page("application/gzip", length=False), "something else than an archive"),
        (status(204), "HTTP 204; expected 200"),
        (partial("bytes 0-99/1000"), "sends 'bytes 0-99/1000'"),
        (partial("nonsense"), "sends 'nonsense'"),
        (no_ranges, None),
    ],
)
@pytest.mark.parametrize("resumed", [False, True])
def test_answers_that_are_something_else(place, trick, match, resumed):
    here = place([cut(1000), status(404), trick] if resumed else [trick])
    if resumed:
        here.fails("404")
    if match:
        here.fails(match)
        kept = (here.to / "archives/a.tar.gz.part").read_bytes() if resumed else b""
        assert kept == PACKED["a"][: len(kept)] and len(kept) == 1000 * resumed
        assert here.archives() == ["a.tar.gz.part"] * resumed
    here.run()
    assert here.corpus() == FILES["a"]


@pytest.mark.parametrize(
    "given",
    [
        "bytes 0-99/{n}",
        "bytes 999-1098/{n}",
        "bytes 1001-1100/{n}",
        "bytes 1000-1099/2000",
        "bytes 1000-1099",
        "bytes=1000-1099/{n}",
        "",
    ],
)
def test_ranges_that_were_not_asked_for(place, given):
    given = given.format(n=len(PACKED["a"]))
    here = place([cut(1000), partial(given)])
    here.fails(re.escape(f"sends '{given}'; expected 'bytes 1000-.../{len(PACKED['a'])}'"))
    assert (here.to / "archives/a.tar.gz.part").read_bytes() == PACKED["a"][:1000]
    here.run()
    assert here.corpus() == FILES["a"]


def test_an_empty_answer_does_not_cost_what_came(place, capsys):
    here = place([cut(1000), lambda handler, data: handler.answer(200, b"", {"Content-Length": str(len(data))})])
    here.run()
    assert here.corpus() == FILES["a"]
    assert [headers.get("Range") for _, headers in here.server.seen] == [None, "bytes=1000-", "bytes=1000-"]


@pytest.mark.parametrize("tricks", [[], [cut(1000)], [cut(1000), status(404)]])
def test_a_published_checksum_without_a_size(place, tricks):
    here = place(tricks, bytes=None)
    if len(tricks) == 2:
        here.fails("404")
    here.run()
    assert here.corpus() == FILES["a"]
    assert [headers.get("Range") for _, headers in here.server.seen] == [None, *["bytes=1000-"] * len(tricks)]
    here.run()
    assert len(here.server.seen) == 1 + len(tricks)
    here.write([archive("a")], here.server.url)
    here.run()
    assert len(here.server.seen) == 1 + len(tricks)


def test_all_bytes_of_a_size_that_only_the_server_knew(place, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    here = place(bytes=None)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(download, "hash_file", interrupted)
        here.run()
    assert here.archives() == ["a.tar.gz.part"]
    here.run()
    assert here.corpus() == FILES["a"] and len(here.server.seen) == 1


def test_a_size_that_nobody_tells_of_a_range(place):
    here = place([partial("bytes 500-599/*")], bytes=None)
    (here.to / "archives").mkdir(parents=True)
    (here.to / "archives/a.tar.gz.part").write_bytes(PACKED["a"][:500])
    here.fails("expected 'bytes 500-.../size'")
    here.run()
    assert here.corpus() == FILES["a"] and here.server.seen[-1][1]["Range"] == "bytes=500-"


def test_a_server_without_ranges_sends_all_again(place, capsys):
    here = place([cut(1000), no_ranges])
    here.run()
    assert here.corpus() == FILES["a"]
    assert "cannot go on after 1000 bytes; starting again" in capsys.readouterr().out


def test_an_answer_without_a_length(place):
    here = place([lambda handler, data: handler.answer(200, data, {}, length=False)])
    here.run()
    assert here.corpus() == FILES["a"]
    here = place([lambda handler, data: handler.answer(200, data[:-9], {}, length=False)])
    shutil.rmtree(here.to)
    here.run()
    assert here.corpus() == FILES["a"] and here.server.seen[1][1]["Range"] == f"bytes={len(PACKED['a']) - 9}-"


def test_more_bytes_than_promised(place):
    here = place([lambda handler, data: handler.answer(200, data + b"more", {}, length=False)])
    here.fails("sends more than")
    assert here.corpus() == {}


def test_chunks_that_end_early(place):
    def chunked(handler, data):
        handler.protocol_version = "HTTP/1.1"
        handler.answer(200, b"", {"Transfer-Encoding": "chunked", "Connection": "close"}, length=False)
        handler.wfile.write(b"%x\r\n%s\r\n" % (5000, data[:5000]) + b"%x\r\n%s" % (5000, data[5000:7000]))
        handler.close_connection = True

    here = place([chunked])
    here.run()
    assert here.corpus() == FILES["a"] and here.server.seen[1][1]["Range"] == "bytes=7000-"


def test_a_wrong_checksum_is_found_before_unpacking_and_removed(place):
    wrong = bytearray(PACKED["a"])
    wrong[100_000] ^= 1
    here = place([lambda handler, data: handler.honest(bytes(wrong))])
    assert "by hand" in here.fails(r"a\.tar\.gz\.part: md5:.*, expected md5:.*\(published\); removed")
    assert here.archives() == [] and here.corpus() == {}
    here.run()
    assert here.corpus() == FILES["a"]


def test_pieces_that_do_not_fit_together_are_fetched_again(place, capsys):
    here = place([cut(1000), status(404), changed])
    here.fails("404")
    here.run()
    assert "removed; starting again, as it was put together from several runs" in capsys.readouterr().out
    assert here.corpus() == FILES["a"] and "Range" not in here.server.seen[-1][1]


def test_sha256(place):
    here = place(checksum=f"sha256:{hashlib.sha256(PACKED['a']).hexdigest()}")
    here.run()
    assert here.corpus() == FILES["a"]


@pytest.mark.parametrize(
    ("part", "asked"),
    [(PACKED["a"], 0), (PACKED["a"] + b"x", 1), (b"\x1f\x8b" + b"x" * 200, 2)],
    ids=["whole", "too long", "other"],
)
def test_parts_that_are_whole_too_long_or_of_something_else(place, part, asked):
    here = place()
    (here.to / "archives").mkdir(parents=True)
    (here.to / "archives/a.tar.gz.part").write_bytes(part)
    here.run()
    assert here.corpus() == FILES["a"] and here.archives() == [] and len(here.server.seen) == asked


def test_the_server_has_fewer_bytes_than_are_here(place):
    here = place([cut(1000), status(416)])
    here.run()
    assert here.corpus() == FILES["a"] and "Range" not in here.server.seen[-1][1]


def test_a_file_put_there_by_hand(place):
    here = place()
    by_hand = here.to / "archives/a.tar.gz"
    by_hand.parent.mkdir(parents=True)
    by_hand.write_bytes(PACKED["a"][:-1])
    here.fails(rf"{len(PACKED['a']) - 1} bytes, expected {len(PACKED['a'])}; remove it to have it downloaded")
    by_hand.write_bytes(PACKED["a"][:-1] + b"x")
    here.fails("expected md5:.*; remove it to have it downloaded")
    assert by_hand.exists() and here.corpus() == {}
    by_hand.write_bytes(PACKED["a"])
    here.run()
    assert here.corpus() == FILES["a"] and here.server.seen == [] and here.archives() == []


def test_mirrors(place, serve):
    here = place()
    mirror = serve(web={"/pub/slr/12/a.tar.gz": PACKED["a"]})
    here.run("--mirror", f"{mirror.url}/pub/slr/")
    assert here.corpus() == FILES["a"] and here.server.seen == [] and len(mirror.seen) == 1
    with pytest.raises(ConfigError, match=r"--mirror: base: .*'ftp://x\.org/'"):
        here.run("--mirror", "ftp://x.org/")


def test_proxies_of_the_environment(place, serve, monkeypatch):
    here = place()
    proxy = serve()
    monkeypatch.setenv("http_proxy", proxy.url)
    here.run("--mirror", "http://corpora.invalid")
    assert here.corpus() == FILES["a"]
    assert [path for path, _ in proxy.seen] == ["http://corpora.invalid/12/a.tar.gz"]
    shutil.rmtree(here.to)
    monkeypatch.setenv("no_proxy", "localhost")
    here.run()
    assert here.corpus() == FILES["a"] and len(here.server.seen) == 1 and len(proxy.seen) == 1


def test_redirects(place, serve):
    mirror = serve([cut(1000)])
    here = place()
    here.server.tricks[:] = [redirect(f"{here.server.url}/moved")] + [redirect(f"{mirror.url}/12/a.tar.gz")] * 2
    here.run()
    assert here.corpus() == FILES["a"]
    assert [headers.get("Range") for _, headers in mirror.seen] == [None, "bytes=1000-"]
    for target in ("ftp://localhost/a.tar.gz", "file:///etc/passwd"):
        shutil.rmtree(here.to)
        here.server.tricks[:] = [redirect(target)]
        here.fails("redirects to|not allowed")
        assert here.archives() == []


def test_a_redirect_that_goes_round(place):
    here = place()
    here.server.tricks[:] = [redirect(f"{here.server.url}/12/a.tar.gz")] * 20
    here.fails("HTTP 302")
    assert len(here.server.seen) < 12


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for localhost, with its key."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make a certificate with")
    path = tmp_path_factory.mktemp("tls") / "pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", path, "-out", f"{path}.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
def secure(tmp_path, serve, certificate, monkeypatch):
    """secure(tricks, **changes) -> Place with an archive without a published checksum on a trusted https server"""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    def make(tricks=(), **changes):
        value = {key: item for key, item in {**UNPUBLISHED, **changes}.items() if item is not None}
        return Place(tmp_path, serve(tricks, tls=certificate), [value])

    return make


def test_from_https_to_http_is_refused(secure, serve):
    plain = serve()
    here = secure([redirect(f"{plain.url}/all.zip")])
    here.fails(r"redirects to http://.*; expected https")
    assert plain.seen == []
    here.run()


def test_proxies_of_https(secure, serve, monkeypatch):
    here, proxy = secure(), serve()
    monkeypatch.setenv("https_proxy", proxy.url)
    here.run()
    assert len(here.corpus()) == 2 and len(here.server.seen) == 1
    assert [path for path, _ in proxy.seen] == [here.server.url.removeprefix("https://")]


def test_certificates_are_checked(secure, monkeypatch):
    here = secure()
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)
    message = here.fails("https://localhost.*: the server's certificate is not trusted")
    assert "by hand" in message and here.server.seen == []


@pytest.mark.parametrize("size", [len(ZIPPED), None])
def test_without_a_published_checksum(secure, capsys, size):
    here = secure(bytes=size)
    here.run()
    found = f"sha256:{hashlib.sha256(ZIPPED).hexdigest()}"
    assert f"nobody publishes its checksum; it is {found}, which is recorded" in capsys.readouterr().out
    marker = here.to / "archives/all/done.json"
    assert json.loads(marker.read_text()) == {"bytes": len(ZIPPED), "checksum": found}
    here.run()
    assert len(here.server.seen) == 1
    # later ones must be the same
    shutil.rmtree(here.to / "subjects")
    here.server.web["/all.zip"] = pack_zip({"subjects/01/01.asf": b"Skeleton", "subjects/01/01_01.amc": noise(150_000)})
    here.fails(rf"sha256:.*, expected {found} \(of an earlier download, recorded in {marker}\); removed")
    assert here.corpus() == {}
    here.server.web["/all.zip"] = ZIPPED
    here.run()
    assert len(here.corpus()) == 2


def test_without_a_published_checksum_http_is_not_enough(secure, serve):
    here = secure()
    plain = serve()
    here.fails("without a published checksum only https is good enough.*by hand", "--mirror", plain.url)
    assert plain.seen == []
    (here.to / "archives/all.zip").write_bytes(ZIPPED)
    here.run("--mirror", plain.url)
    assert len(here.corpus()) == 2 and here.server.seen == plain.seen == []


def test_pieces_without_a_published_checksum_are_joined_if_the_server_vouches(secure, capsys):
    here = secure([cut(70_000)], bytes=None)
    here.run()
    assert (here.server.seen[1][1]["Range"], here.server.seen[1][1]["If-Range"]) == ("bytes=70000-", ETAG)
    assert len(here.corpus()) == 2 and here.archives() == []


def test_pieces_of_a_file_that_has_changed_are_not_joined(secure, capsys):
    here = secure([cut(70_000), status(404)], bytes=None)
    here.fails("404")
    new = pack_zip({"subjects/01/01.asf": b"Skeleton", "subjects/01/01_01.amc": noise(150_000, 1)})
    here.server.tricks[:] = [lambda handler, data: handler.honest(new, tag='"v2"')]
    here.run()
    assert "cannot go on after 70000 bytes; starting again" in capsys.readouterr().out
    assert here.corpus()["subjects/01/01_01.amc"] == noise(150_000, 1)


@pytest.mark.parametrize("tag", ['W/"v1"', ""])
def test_pieces_that_nobody_vouches_for_are_not_joined(secure, tag):
    def weak(handler, data):
        handler.honest(data, tag, stop=70_000)

    here = secure([weak])
    here.run()
    assert "Range" not in here.server.seen[1][1] and len(here.corpus()) == 2


def test_a_size_that_nobody_tells(secure):
    here = secure([lambda handler, data: handler.answer(200, data, {}, length=False)], bytes=None)
    here.fails("does not say how many bytes there are")


def test_hostile_archives_leave_nothing(tmp_path, serve):
    hostile = pack_tar({"LibriSpeech/a/1.flac": b"1", "../../out": b"out"})
    server = serve(web={"/12/a.tar.gz": hostile})
    here = Place(tmp_path, server, [archive("a", hostile)])
    here.fails("leads elsewhere; nothing was unpacked")
    assert here.archives() == ["a.tar.gz"] and here.corpus() == {}
    assert sorted(p.name for p in (here.to / "archives").iterdir()) == ["a", "a.tar.gz", "lock"]
    assert list((here.to / "archives/a").iterdir()) == [] and not (tmp_path / "out").exists()


def test_contents_that_are_not_in_the_archive(place):
    here = place(contents=["LibriSpeech/a", "LibriSpeech/c"])
    here.fails(r"a\.tar\.gz: there is no LibriSpeech/c in it")
    assert here.corpus() == {}


def test_what_is_in_the_way_is_found_before_downloading(place):
    here = place([], "b", "a")
    mine = here.to / "LibriSpeech/a/mine"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    here.fails("LibriSpeech/a: is in the way of a, which is not marked as complete")
    assert here.server.seen == [] and here.corpus() == {"LibriSpeech/a/mine": b"mine"}


def test_shared_files_that_differ_are_named(tmp_path, serve, capsys):
    other = pack_tar({**FILES["b"], "LibriSpeech/SPEAKERS.TXT": b"other"})
    server = serve(web={**WEB, "/12/b.tar.gz": other})
    here = Place(tmp_path, server, [archive("a"), archive("b", other)])
    here.run()
    assert (
        "LibriSpeech/SPEAKERS.TXT: has other bytes in b.tar.gz; the one that is there stays" in capsys.readouterr().out
    )
    assert here.corpus() == {**FILES["b"], **FILES["a"]}


@pytest.mark.parametrize("change", [{"checksum": "md5:" + "0" * 32}, {"checksum": "unpublished", "bytes": 9}])
def test_a_new_version_of_an_archive_does_not_pass_as_complete(place, change):
    here = place()
    here.run()
    here.write([archive("a", **change)], here.server.url)
    here.fails("in the way of a")


@pytest.mark.parametrize(
    ("keep", "needed"), [(False, len(PACKED["a"]) + 600_000), (True, len(PACKED["a"] + PACKED["b"]) + 600_000)]
)
def test_free_space_is_looked_at_first(place, monkeypatch, keep, needed):
    here = place([], "a", "b")
    usage = shutil.disk_usage(here.list.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed - 1))
    here.fails(rf"to here: {needed} bytes are needed and {needed - 1} are free", *(["--keep"] if keep else []))
    assert here.server.seen == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed))
    here.run(*(["--keep"] if keep else []))


def test_free_space_for_a_size_that_only_the_server_knows(secure, monkeypatch):
    here = secure(bytes=None)
    usage = shutil.disk_usage(here.list.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=usage.free and 300_000))
    here.server.web["/all.zip"] = ZIPPED + bytes(400_000)
    here.fails(rf"all\.zip\.part: {len(ZIPPED) + 400_000} bytes are needed and 300000 are free")
    assert here.corpus() == {}


def test_two_at_once(place):
    here = place()
    with locked(here.to / "archives"):
        here.fails("in use by")
    assert here.server.seen == []


def program(here, *more, before=""):
    """The program in a process of its own."""
    code = f"{before}\nfrom speechlvm.bin.cli import run_main\nfrom speechlvm.bin.download import main\nrun_main(main)"
    return subprocess.Popen(
        [sys.executable, "-c", code, *here.arguments(*more)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def slowly(handler, data):
    """Half of it, then nothing while the client waits."""
    handler.honest(data, stop=len(data) // 2)
    handler.wfile.flush()
    handler.server.halfway.set()
    handler.server.stop.wait(20)


@pytest.mark.parametrize(("number", "exit_status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 75)])
def test_killed_in_the_middle_of_a_transfer(place, number, exit_status):
    here = place([slowly])
    here.server.halfway = threading.Event()
    process = program(here)
    assert here.server.halfway.wait(20)
    part, deadline = here.to / "archives/a.tar.gz.part", time.monotonic() + 10
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == exit_status, err
    if exit_status == 75:
        assert err == "error: interrupted; run the same command again to finish\n"
        assert part.stat().st_size == len(PACKED["a"]) // 2
    assert here.corpus() == {}
    here.run()
    assert here.corpus() == FILES["a"] and here.archives() == []


KILL_AT = """
import os, signal, speechlvm.data.corpora.{module} as module
real = module.{name}
def dying(*arguments, **options):
    if {when} == "after":
        real(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
module.{name} = dying
"""


@pytest.mark.parametrize(
    ("module", "name", "when"),
    [
        ("download", "hash_file", "before"),
        ("download", "unpack", "after"),
        ("download", "mark_done", "after"),
        ("unpack", "_move", "after"),
        ("download", "move_into", "after"),
    ],
)
def test_killed_later(place, module, name, when):
    here = place()
    process = program(here, before=KILL_AT.format(module=module, name=name, when=repr(when)))
    _, err = process.communicate(timeout=30)
    assert process.returncode == -9, err
    assert not (here.to / "archives/a/done.json").exists()
    if name == "hash_file":
        assert here.corpus() == {} and here.archives() == ["a.tar.gz.part"]
    here.run()
    assert here.corpus() == FILES["a"] and here.archives() == []
    assert os.listdir(here.to / "archives/a") == ["done.json"]
    assert len(here.server.seen) == 1  # nothing was fetched twice


def test_what_is_left_of_a_download_that_came_again_is_put_in_place(place):
    here = place()
    here.run()
    staging = here.to / "archives/a/unpacked"
    (staging / "files/LibriSpeech").mkdir(parents=True)
    (here.to / "LibriSpeech/README.TXT").rename(staging / "files/LibriSpeech/README.TXT")
    shutil.copy(here.to / "archives/a/done.json", staging)
    here.run()
    assert here.corpus() == FILES["a"] and not staging.exists() and len(here.server.seen) == 1


@pytest.mark.parametrize(("limit", "where"), [(50_000, "a.tar.gz.part"), (len(PACKED["a"]) + 10, "1.flac")])
def test_a_full_disk(tmp_path, serve, limit, where):
    files = {"LibriSpeech/a/1.flac": bytes(290_000) + noise(5000)}
    packed = pack_tar(files) if where == "1.flac" else PACKED["a"]
    server = serve(web={"/12/a.tar.gz": packed})
    here = Place(tmp_path, server, [archive("a", packed)])
    before = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    )
    _, err = (process := program(here, before=before)).communicate(timeout=30)
    assert process.returncode == 1 and re.fullmatch(rf"error: .*{where}: File too large while writing; .*\n", err), err
    assert here.corpus() == {}
    here.run()
    assert len(here.corpus()) >= 1 and here.archives() == []


def test_log_lines_where_there_is_no_terminal(place, capsys, monkeypatch):
    monkeypatch.setattr(transfer, "LOG_EVERY_S", 0)
    here = place()
    here.run()
    out, err = capsys.readouterr()
    assert re.search(r"INFO a\.tar\.gz: 0\.2 of 0\.2 MB, [0-9.]+ MB/s\n", out) and err == ""


def test_a_bar_on_a_terminal(place, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    here = place()
    here.run()
    out, err = capsys.readouterr()
    assert "a.tar.gz: 100%" in err and "MB/s" not in out


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"checksum": None}, r"archives\.0\.checksum: missing"),
        ({"checksum": "md5:12"}, "expected md5: and 32, or sha256: and 64 digits"),
        ({"checksum": "sha1:" + "0" * 40}, "expected md5"),
        ({"checksum": "md5:" + "A" * 32}, "expected md5"),
        ({"bytes": 0}, "greater than 0"),
        ({"path": "12/a.tar"}, r"ends in \.tar\.gz, \.tgz or \.zip"),
        ({"path": "../a.zip"}, "archives.0.path"),
        ({"path": "https://x.org/a.zip"}, "archives.0.path"),
        ({"path": "/a.zip"}, "archives.0.path"),
        ({"name": "../a"}, "archives.0.name"),
        ({"name": "a b"}, "archives.0.name"),
        ({"contents": []}, "archives.0.contents"),
        ({"contents": ["../x"]}, "expected a path of names"),
        ({"contents": ["/x"]}, "expected a path of names"),
        ({"contents": ["archives/x"]}, "not below archives"),
        ({"contents": ["x", "x/y"]}, "lie in each other"),
        ({"contents": ["LibriSpeech/b"]}, "lie in each other"),
        ({"name": "B"}, "two archives have the name 'b'"),
        ({"path": "13/b.tar.gz"}, r"two archives have the file 'b\.tar\.gz'"),
        ({"size": 3}, "unknown key"),
        ({"max_members": "10"}, "max_members"),
    ],
)
def test_lists_that_are_wrong(tmp_path, changes, match):
    here = Place(tmp_path, SimpleNamespace(url="https://x.org/"), [archive("a", **changes), archive("b")])
    with pytest.raises(ConfigError, match=match):
        load_archives(here.list)


@pytest.mark.parametrize("base", ["ftp://x.org/", "x.org", "https://x.org/?a=", "file:///", "https://x y/"])
def test_bases_that_are_wrong(tmp_path, base):
    here = Place(tmp_path, SimpleNamespace(url=base), [archive("a")])
    with pytest.raises(ConfigError, match="base"):
        load_archives(here.list)


def test_the_lists_of_all_recipes():
    paths = sorted(Path(__file__).resolve().parents[4].glob("egs/*/local/archives.yaml"))
    assert paths and all(load_archives(path).archives for path in paths)
