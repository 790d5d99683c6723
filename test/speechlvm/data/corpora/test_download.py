import hashlib
import logging
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
import yaml

from speechlvm.bin.download import main
from speechlvm.data.corpora import download
from speechlvm.data.corpora.download import load_archives
from speechlvm.utils.errors import ConfigError, UserError

SHARED = {"C/README": b"read me"}
FILES = {name: {f"C/{name}/1": random.Random(name).randbytes(200_000), **SHARED} for name in "ab"}


def pack(files):
    stream = BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as packed:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            packed.addfile(member, BytesIO(data))
    return stream.getvalue()


PACKED = {name: pack(files) for name, files in FILES.items()}
A = PACKED["a"]
AGAIN = {"Range": "bytes=100000-", "If-Range": '"v1"'}


class Handler(BaseHTTPRequestHandler):
    """Honest, unless server.faults has something for this request: a status, or where in the file it ends."""

    def do_GET(self):
        server, start = self.server, 0
        server.asked.append({key: value for key, value in self.headers.items() if "Range" in key})
        fault = server.faults.pop(0) if server.faults else None
        data = server.files.get(self.path[1:], b"")
        if isinstance(fault, int) or not data:
            return self.send_error(fault or 404)
        if self.headers.get("If-Range") in server.version.values():
            start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1])
            if start >= len(data):
                return self.send_error(416)
        self.send_response(206 if start else 200)
        for key, value in {**server.version, "Content-Length": len(data) - start}.items():
            self.send_header(key, str(value))
        self.end_headers()
        self.wfile.write(data[start : fault and fault["end"]])
        if fault and "hang" in fault:
            server.stop.wait(20)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "WAITS_S", (0, 0, 0))
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files = {f"12/{name}.tar.gz": data for name, data in PACKED.items()}
    server.asked, server.faults, server.version, server.stop = [], [], {"ETag": '"v1"'}, threading.Event()
    server.url = f"http://127.0.0.1:{server.server_address[1]}/"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()


class Place:
    """A list of archives, a directory to download to, and the program."""

    def __init__(self, root, server):
        self.server, self.to, self.list, self.archives = (
            server,
            root / "to here",
            root / "list.yaml",
            [self.archive("a")],
        )
        self.file, self.part = (self.to / "archives" / name for name in ("a.tar.gz", "a.tar.gz.part"))

    def archive(self, name):
        data = PACKED[name]
        return {"name": name, "path": f"12/{name}.tar.gz", "bytes": len(data), "content": f"C/{name}",
                "checksum": f"md5:{hashlib.md5(data).hexdigest()}", "max_unpacked_bytes": 300_000}  # fmt: skip

    def arguments(self):
        self.list.write_text(
            yaml.safe_dump({"licence": "CC BY 4.0", "base": self.server.url, "archives": self.archives})
        )
        return ["--archives", str(self.list), "--to", str(self.to)]

    def run(self, *more):
        assert main([*self.arguments(), *more]) == 0

    def fails(self, match, *more, error=UserError):
        with pytest.raises(error, match=match) as caught:
            self.run(*more)
        assert "\n" not in str(caught.value)

    def program(self, before=""):
        """The program in a process of its own."""
        code = f"{before}\nfrom speechlvm.bin import cli, download\ncli.run_main(download.main)"
        return subprocess.Popen([sys.executable, "-c", code, *self.arguments()], stderr=subprocess.PIPE, text=True)

    def corpus(self):
        found = {str(path.relative_to(self.to)): path for path in self.to.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in found.items() if not name.startswith("archives/")}

    def complete(self):
        return self.corpus() == FILES["a"] and os.listdir(self.to / "archives") == ["lock"]


@pytest.fixture
def here(tmp_path, server):
    return Place(tmp_path, server)


def test_archives_of_one_corpus_are_joined_and_a_rerun_does_nothing(here, capsys):
    here.server.files["12/b.tar.gz"] = PACKED["b"] = pack({**FILES["b"], "C/README": b"other"})
    here.archives.append(here.archive("b"))
    here.run("--only", "a")
    assert here.complete() and "a: CC BY 4.0" in capsys.readouterr().out
    here.run()
    assert here.corpus() == {**FILES["a"], **FILES["b"]}
    assert "C/README: differs from the file in b; keeping the existing one" in capsys.readouterr().out
    stamps = {path: path.stat().st_mtime_ns for path in here.to.rglob("*")}
    here.run()
    assert capsys.readouterr().out == f"{here.to}: a: complete\n{here.to}: b: complete\n"
    assert stamps == {path: path.stat().st_mtime_ns for path in here.to.rglob("*")} and len(here.server.asked) == 2
    shutil.rmtree(here.to / "C/a")
    here.run()
    assert here.corpus() == {**FILES["a"], **FILES["b"]}


@pytest.mark.parametrize("hang", [{}, {"hang": True}])
@pytest.mark.parametrize("key,version", [("ETag", '"v1"'), ("Last-Modified", "Sat, 01 Jan 2000 00:00:00 GMT")])
def test_an_interrupted_transfer_goes_on_where_it_stopped(here, capsys, monkeypatch, hang, key, version):
    if hang:
        monkeypatch.setattr(download, "STALL_S", 2)
    here.server.version = {"ETag": 'W/"weak"', key: version}
    here.server.faults = [{"end": 100_000, **hang}, 404]
    here.fails("HTTP Error 404: Not Found; try another --mirror, or download it manually to .*/a.tar.gz and run")
    assert here.part.read_bytes() == A[:100_000] and here.corpus() == {}
    assert ("timed out" if hang else "ended after 100000 of") in capsys.readouterr().out
    here.run()
    again = {"Range": "bytes=100000-", "If-Range": version}
    assert here.complete() and here.server.asked == [{}, again, again]


@pytest.mark.parametrize("version", [{"ETag": 'W/"v1"'}, {}])
def test_what_the_server_does_not_vouch_for_starts_again(here, version):
    here.server.version, here.server.faults = version, [{"end": 100_000}]
    here.run()
    assert here.complete() and here.server.asked == [{}, {}]


def test_a_file_that_has_changed_on_the_server_starts_again(here, capsys):
    here.server.files["12/a.tar.gz"] = bytes(reversed(A))
    here.server.faults = [{"end": 100_000}, 404]
    here.fails("404")
    here.server.files["12/a.tar.gz"], here.server.version = A, {"ETag": '"v2"'}
    here.run()
    assert here.complete() and here.server.asked[2] == AGAIN
    assert "may have changed; downloading its 100000 bytes again" in capsys.readouterr().out


@pytest.mark.parametrize("part,match", [(A + b"x", ""), (A, ""), (A[:-1] + b"x", "expected md5:.*; removed; try ")])
def test_parts_as_long_as_the_file_or_longer(here, part, match):
    here.server.faults = [{"end": 100_000}, 404]
    here.fails("404")
    here.part.write_bytes(part)
    if match:
        here.fails(match)
    here.run()
    assert here.complete()


def test_a_server_that_is_busy_for_a_moment(here, monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(download, "WAITS_S", (1, 2, 4))
    here.server.faults = [503, 429, {"end": 100_000}, 500, 503]
    here.run()
    assert here.complete() and waits == [1, 2, 1, 2, 4]


@pytest.mark.parametrize("size", [len(A), None])
def test_a_body_that_is_always_cut(here, size):
    here.archives[0]["bytes"] = size
    here.server.faults = [{"end": 100_000}] * 4
    here.fails(rf"the connection ended after 100000 of {len(A)} bytes \(tried 4 times\)")
    assert here.part.read_bytes() == A[:100_000] and here.corpus() == {} and here.server.asked[1:] == [AGAIN] * 3
    here.run()
    assert here.complete()


def test_a_file_of_another_size_is_not_fetched(here):
    here.server.files["12/a.tar.gz"] = A[:-1]
    here.fails(f"the server offers {len(A) - 1} bytes, expected {len(A)}")
    assert not here.part.exists() and len(here.server.asked) == 1


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_a_wrong_checksum_is_found_before_unpacking(here, algorithm, monkeypatch):
    here.archives[0]["checksum"] = f"{algorithm}:{hashlib.new(algorithm, A).hexdigest()}"
    here.server.files["12/a.tar.gz"] = A[:-1] + b"x"
    with monkeypatch.context() as patch:
        patch.setattr(download, "unpack", None)
        here.fails(f"{algorithm}:.*, expected {algorithm}:.*; removed; try another --mirror")
    assert os.listdir(here.to / "archives") == ["lock"] and here.corpus() == {}
    here.server.files["12/a.tar.gz"] = A
    here.run()
    assert here.complete()


def test_a_file_put_there_by_hand_is_verified_and_used(here):
    here.file.parent.mkdir(parents=True)
    for wrong, what in ((A[:-1], f"{len(A) - 1} bytes, expected {len(A)}"), (A[:-1] + b"x", "md5:.*, expected md5:.*")):
        here.file.write_bytes(wrong)
        here.fails(f"{what}; remove it to download it again")
    here.file.write_bytes(A)
    here.run()
    assert here.complete() and here.server.asked == []


def test_without_a_published_checksum_only_https_is_good_enough(here, capsys):
    here.archives[0]["checksum"] = "unpublished"
    here.fails(f"comes from {here.server.url}12/a.tar.gz; without a published checksum it has to be https; .*manually")
    assert not here.part.exists()
    here.file.write_bytes(A)
    here.run()
    assert here.complete()
    assert f"no published checksum; its SHA-256 is {hashlib.sha256(A).hexdigest()}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "match"),
    [({"C/a/1": b"", "../out": b""}, "outside the target directory"), ({"C/b/1": b""}, "no C/a in it")],
)
def test_archives_that_are_hostile_or_another_leave_nothing(here, files, match):
    packed = here.server.files["12/a.tar.gz"] = pack(files)
    here.archives[0] |= {"bytes": None, "checksum": f"md5:{hashlib.md5(packed).hexdigest()}"}
    here.fails(match)
    assert here.corpus() == {} and sorted(os.listdir(here.to / "archives")) == ["a.tar.gz", "lock"]
    assert sorted(os.listdir(here.list.parent)) == ["list.yaml", "to here"]


def test_free_space_is_looked_at_first(here, monkeypatch):
    here.archives.append(here.archive("b"))
    needed, usage = 600_000 + max(map(len, PACKED.values())), shutil.disk_usage(here.list.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed - 1))
    here.fails(rf"to here: {needed} bytes are needed and {needed - 1} are free")
    assert here.server.asked == []


def test_a_full_disk(here):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        here.fails(r"a\.tar\.gz\.part: File too large while writing; ")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    here.run()
    assert here.complete()


def test_killed_in_the_middle_of_a_transfer(here):
    here.server.faults = [{"end": 150_000, "hang": True}]
    process, deadline = here.program(), time.monotonic() + 30
    while not (here.part.exists() and here.part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert here.corpus() == {} and not here.file.exists() and 0 < here.part.stat().st_size <= 150_000
    here.run()
    assert here.complete() and "Range" in here.server.asked[1]


KILL = """
import os, signal
from speechlvm.data.corpora import download as module, unpack as unpacking
real, left = {name}, {call}
def dying(*arguments, **options):
    global left
    result, left = real(*arguments, **options), left - 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
{name} = dying
"""
POINTS = [("module.hash_file", 1), ("unpacking._write", 1), ("os.rename", 1), ("os.rename", 2), ("os.rename", 3)]


@pytest.mark.parametrize("name,call", POINTS)
def test_killed_later(here, name, call):
    process = here.program(KILL.format(name=name, call=call))
    assert (process.communicate()[1], process.returncode) == ("", -signal.SIGKILL)
    assert not (here.to / "C/a").exists() or here.corpus() == FILES["a"]
    here.run()
    assert here.corpus() == FILES["a"] and len(here.server.asked) == 1  # nothing was fetched twice
    shutil.rmtree(here.to / "C")
    here.run()
    assert here.complete()


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(here, capsys, monkeypatch, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(download, "LOG_EVERY_S", 0)
    here.run()
    out, err = capsys.readouterr()
    assert ("a.tar.gz: 100%" in err, "INFO a.tar.gz: 0.2 of 0.2 MB" in out) == (terminal, not terminal)


@pytest.mark.parametrize("key,value", [("checksum", "md5:12"), ("checksum", "sha1:00"), ("path", "a.tar"), ("size", 3)])
def test_lists_that_are_wrong(here, key, value):
    here.archives[0][key] = value
    here.fails(rf"list.yaml: archives\.0\.{key}: ", error=ConfigError)


def test_options_that_are_wrong(here):
    here.fails(r"refused.*\(tried 4 times\)", "--mirror", "http://127.0.0.1:1/")
    here.fails(r"--only c: not in .*; expected some of a$", "--only", "a c", error=ConfigError)
    here.fails(r"--mirror: base: .*'ftp://x\.org/'", "--mirror", "ftp://x.org/", error=ConfigError)


def test_the_lists_of_all_recipes():
    paths = sorted(Path(__file__).resolve().parents[4].glob("egs/*/local/archives.yaml"))
    assert paths and all(load_archives(path).archives for path in paths)
