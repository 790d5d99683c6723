import gzip
import io
import os
import shutil
import stat
import struct
import tarfile
import zipfile

import pytest

from speechlvm.data.corpora.unpack import move_into, unpack
from speechlvm.utils.errors import UserError

HONEST = {"C/a/1.flac": b"one" * 1000, "C/a/2.flac": b"", "C/README": b"read me"}
LIMITS = {"max_bytes": 10**6, "max_members": 100}


def tar_member(name, kind=tarfile.REGTYPE, data=b"", **attributes):
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, len(data)
    for key, value in attributes.items():
        setattr(member, key, value)
    return member, data


def make_tar(path, *members, format=tarfile.GNU_FORMAT, end=None):
    """A .tar.gz with these members exactly; `end` takes the place of what tarfile writes at the end."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format) as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data))
        used = tar.offset
    plain = stream.getvalue() if end is None else stream.getvalue()[:used] + end
    path.write_bytes(gzip.compress(plain, 6))
    return path


def make_zip(path, *members):
    """A .zip with these (name or ZipInfo, data)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for member, data in members:
            packed.writestr(member, data)
    return path


def zip_member(name, mode=0, **attributes):
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    member.compress_type = zipfile.ZIP_DEFLATED
    for key, value in attributes.items():
        setattr(member, key, value)
    return member


def honest_archive(path):
    if path.suffix == ".zip":
        return make_zip(path, *HONEST.items())
    return make_tar(path, tar_member("./", tarfile.DIRTYPE), *(tar_member(f"./{n}", data=d) for n, d in HONEST.items()))


def tree(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def refused(path, match, **limits):
    """Unpacking fails with one line, and outside of the new directory nothing has changed."""
    shutil.rmtree(path.parent / "new", ignore_errors=True)
    before = tree(path.parent)
    with pytest.raises(UserError, match=match) as error:
        unpack(path, path.parent / "new" / "files", **{**LIMITS, **limits})
    assert "\n" not in str(error.value) and str(error.value).startswith(f"{path}: ")
    outside = {name: data for name, data in tree(path.parent).items() if not name.startswith("new/files/")}
    assert outside == before
    assert not any(p.is_symlink() for p in path.parent.rglob("*"))


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x.zip"])
def test_honest_archives(tmp_path, name):
    unpack(honest_archive(tmp_path / name), tmp_path / "new", **LIMITS)
    assert tree(tmp_path / "new") == HONEST


def test_limits_are_upper_limits(tmp_path):
    path, total = honest_archive(tmp_path / "x.tar.gz"), sum(map(len, HONEST.values()))
    unpack(path, tmp_path / "exact", total, len(HONEST) + 2)
    assert tree(tmp_path / "exact") == HONEST
    refused(path, f"more than the {total - 1} bytes in all", max_bytes=total - 1)


@pytest.mark.parametrize("suffix", ["tar.gz", "zip"])
@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("../out", "leads elsewhere"),
        ("C/../../out", "leads elsewhere"),
        ("C/..", "leads elsewhere"),
        ("C//out", "leads elsewhere"),
        ("HERE/out", "absolute"),
        ("C\\..\\..\\out", "backslash"),
        ("C/\x1b[2Jout", "not printable"),
        ("C/new\nline", "not printable"),
        ("n" * 256, "a name of more than 255"),
        ("é" * 128, "a name of more than 255"),
        ("/".join(["d" * 200] * 6), "a path of more than 1024"),
    ],
)
def test_hostile_names(tmp_path, suffix, name, match):
    path, name = tmp_path / f"x.{suffix}", name.replace("HERE", str(tmp_path))
    if suffix == "zip":
        make_zip(path, ("C/a", b"a"), (name, b"out"))
    else:
        make_tar(path, tar_member("C/a", data=b"a"), tar_member(name, data=b"out"))
    refused(path, match)


def test_names_that_are_not_utf8(tmp_path):
    refused(make_tar(tmp_path / "x.tgz", tar_member(b"C/\xff".decode("utf-8", "surrogateescape"))), "not printable")


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        (tarfile.SYMTYPE, {"linkname": "/etc"}),
        (tarfile.SYMTYPE, {"linkname": "a"}),
        (tarfile.LNKTYPE, {"linkname": "C/a"}),
        (tarfile.CHRTYPE, {"devmajor": 1, "devminor": 5}),
        (tarfile.BLKTYPE, {"devmajor": 8}),
        (tarfile.FIFOTYPE, {}),
        (tarfile.CONTTYPE, {}),
        (b"Z", {}),
    ],
)
def test_tar_members_that_are_no_files(tmp_path, kind, attributes):
    first, last = tar_member("C/a", data=b"a"), tar_member("C/link/b", data=b"b")
    path = make_tar(tmp_path / "x.tar.gz", first, tar_member("C/link", kind, **attributes), last)
    refused(path, "'C/link': a link, a device or of another kind")


def test_sparse_tar_members(tmp_path):
    member, data = tar_member("C/a", data=b"abc")
    member.pax_headers = {"GNU.sparse.size": str(1 << 40), "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,3"}
    refused(make_tar(tmp_path / "x.tgz", (member, data), format=tarfile.PAX_FORMAT), "'C/a': a link, a device")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK, stat.S_IFDIR])
def test_zip_members_that_are_no_files(tmp_path, kind):
    path = make_zip(tmp_path / "x.zip", ("C/a", b"a"), (zip_member("C/link", kind | 0o777), b"/etc"))
    refused(path, "'C/link': a link, a device or of another kind")


def test_zip_members_with_a_zero_byte_a_strange_method_or_a_password(tmp_path):
    path = make_zip(tmp_path / "x.zip", ("C/aXb", b"a"))
    intact = path.read_bytes()
    path.write_bytes(intact.replace(b"C/aXb", b"C/a\0b"))
    refused(path, "a zero byte in its name")
    at = intact.index(b"PK\1\2")  # the central directory
    path.write_bytes(intact[: at + 8] + b"\1\0" + intact[at + 10 :])
    refused(path, "damaged.*encrypted")
    member = zip_member("C/a", compress_type=zipfile.ZIP_LZMA)
    refused(make_zip(tmp_path / "y.zip", (member, b"a")), "compressed by method 14")
    refused(make_zip(tmp_path / "z.zip", (zip_member("C/d/", stat.S_IFDIR), b"content")), "content of its own")


@pytest.mark.parametrize("suffix", ["tar.gz", "zip"])
@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["C/a", "C/a"], "twice"),
        (["C/a", "./C/a"], "twice"),
        (["C/a", "C/A"], "the same as 'C/a'"),
        (["C/a", "c/b"], "the same as 'C'"),
        (["C/caf\u00e9", "C/cafe\u0301"], "the same as"),
        (["C/a", "C/a/b"], "both a file and a directory"),
        (["C/a/b", "C/a"], "both a file and a directory"),
        (["C/a/b", "C/A"], "both a file and a directory"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_in_the_way_of_each_other(tmp_path, suffix, names, match):
    path = tmp_path / f"x.{suffix}"
    if suffix == "zip":
        make_zip(path, *((name, name.encode()) for name in names))
    else:
        make_tar(path, *(tar_member(name, data=name.encode()) for name in names))
    refused(path, match)


def test_modes_owners_and_times_are_not_taken_over(tmp_path):
    hostile = {"mode": 0o6777, "uid": 0, "mtime": 1 << 40}
    path = make_tar(
        tmp_path / "x.tgz", tar_member("C", tarfile.DIRTYPE, mode=0o1000), tar_member("C/run", data=b"#!", **hostile)
    )
    unpack(path, tmp_path / "a", **LIMITS)
    unpack(make_zip(tmp_path / "x.zip", (zip_member("C/run", 0o106777), b"#!")), tmp_path / "b", **LIMITS)
    umask = os.umask(0)
    os.umask(umask)
    for name in "ab":
        assert stat.S_IMODE((tmp_path / name / "C/run").stat().st_mode) == 0o666 & ~umask
        assert stat.S_IMODE((tmp_path / name / "C").stat().st_mode) == 0o777 & ~umask


@pytest.mark.parametrize("suffix", ["tar.gz", "zip"])
def test_bombs(tmp_path, suffix):
    path, zeros = tmp_path / f"x.{suffix}", bytes(20_000_000)
    if suffix == "zip":
        make_zip(path, ("C/a", b"a"), ("C/bomb", zeros))
    else:
        make_tar(path, tar_member("C/a", data=b"a"), tar_member("C/bomb", data=zeros))
    refused(path, "'C/bomb': more than the 1000000 bytes in all")
    assert (tmp_path / "new/files/C/bomb").stat().st_size <= 10**6  # stopped, not measured afterwards
    many = [f"C/{'d/' * 40}{number}" for number in range(70)]
    if suffix == "zip":
        make_zip(path, *((name, b"") for name in many))
    else:
        make_tar(path, *(tar_member(name) for name in many))
    refused(path, "more than the 100 files and directories")
    assert sum(1 for _ in (tmp_path / "new").rglob("*")) <= 101


def test_a_header_that_is_a_bomb(tmp_path):
    """Long names are read whole into memory by Python's reader."""
    member, _ = tar_member("C/a")
    member.pax_headers = {"comment": "x" * 3_000_000}
    refused(make_tar(tmp_path / "x.tgz", (member, b""), format=tarfile.PAX_FORMAT), "damaged.*a header of 300")


def test_a_chain_of_headers_ends(tmp_path):
    """Each is read inside the reading of the one before."""
    header = tar_member("long", tarfile.GNUTYPE_LONGNAME, b"C/a\0")[0].tobuf() + b"C/a".ljust(512, b"\0")
    path = tmp_path / "x.tgz"
    path.write_bytes(gzip.compress(header * 3000 + tar_member("C/a")[0].tobuf() + bytes(1024)))
    refused(path, "damaged")


def test_zeros_after_the_end_are_counted_too(tmp_path):
    path = make_tar(tmp_path / "x.tgz", tar_member("C/a", data=b"a"), end=bytes(8_000_000))
    refused(path, "damaged.*bytes unpacked")


def test_sizes_that_lead_backwards(tmp_path):
    member, data = tar_member("C/a", data=b"abc")
    member.pax_headers = {"size": "-1024"}
    path = make_tar(tmp_path / "x.tgz", tar_member("C/0", data=b"0"), (member, data), format=tarfile.PAX_FORMAT)
    refused(path, "damaged.*leads backwards")


def test_sizes_that_lie(tmp_path):
    path = make_zip(tmp_path / "x.zip", ("C/a", b"a" * 5000))
    data = path.read_bytes()
    at = data.index(b"PK\1\2") + 24  # the unpacked size in the central directory
    for lie in (4000, 6000):
        path.write_bytes(data[:at] + struct.pack("<L", lie) + data[at + 4 :])
        refused(path, "damaged.*(CRC|ends early)")


def damaged_tars(path):
    members = [tar_member(name, data=data) for name, data in HONEST.items()]
    intact = make_tar(path, *members).read_bytes()
    plain = gzip.decompress(intact)
    yield "cut", intact[:-12]
    yield "cut in the middle", intact[: len(intact) // 2]
    yield "empty", b""
    yield "not gzip", plain
    yield "wrong checksum of gzip", intact[:-8] + b"\0\0\0\0" + intact[-4:]
    yield "without its end", gzip.compress(plain[: plain.rindex(b"ustar") - 257 + 1024])
    yield "cut in a header", gzip.compress(plain[: plain.rindex(b"ustar")])
    yield "cut in a file", gzip.compress(plain[:1500])
    yield "wrong checksum of a header", gzip.compress(plain.replace(b"C/README", b"C/READYE"))
    yield "another tar after it", gzip.compress(plain + plain)
    yield "nothing but zeros after a header", gzip.compress(plain[:512])
    yield "a page", gzip.compress(b"<html>not found</html>")


SAID = {
    "cut in a file": "it ends early",
    "without its end": "its end is missing",
    "wrong checksum of a header": "its end is missing",
    "another tar after it": "data after its end",
    "wrong checksum of gzip": "CRC check failed",
}


def test_damaged_tars(tmp_path):
    for what, data in damaged_tars(tmp_path / "x.tar.gz"):
        place = tmp_path / what
        place.mkdir()
        (place / "x.tar.gz").write_bytes(data)
        refused(place / "x.tar.gz", rf"damaged, or not the archive its name says \({SAID.get(what, '')}")


def test_damaged_zips(tmp_path):
    intact = honest_archive(tmp_path / "x.zip").read_bytes()
    flipped = bytearray(intact)
    flipped[intact.index(b"C/a/1.flac") + 14] ^= 1
    for what, data in {"cut": intact[:-30], "empty": b"", "flipped": bytes(flipped), "page": b"<html>"}.items():
        place = tmp_path / what
        place.mkdir()
        (place / "x.zip").write_bytes(data)
        refused(place / "x.zip", "damaged, or not the archive")


def test_everything_reaches_the_disk(tmp_path, monkeypatch):
    synced = set()
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.add(os.readlink(f"/proc/self/fd/{descriptor}")))
    unpack(honest_archive(tmp_path / "x.zip"), tmp_path / "new", **LIMITS)
    assert synced == {str(p) for p in [tmp_path / "new", *(tmp_path / "new").rglob("*")]}


def write_tree(path, files):
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)


def test_archives_that_share_files_are_merged(tmp_path):
    write_tree(tmp_path / "a", {"C/a/1": b"1", "C/README": b"same", "C/SPEAKERS": b"all", "C/doc/x": b"x"})
    write_tree(tmp_path / "b", {"C/b/2": b"2", "C/README": b"same", "C/SPEAKERS": b"b's", "C/doc/y": b"y"})
    assert move_into(tmp_path / "a", tmp_path / "to", ["C/a"]) == []
    assert move_into(tmp_path / "b", tmp_path / "to", ["C/b"]) == ["C/SPEAKERS"]
    both = {"C/a/1": b"1", "C/b/2": b"2", "C/README": b"same", "C/SPEAKERS": b"all", "C/doc/x": b"x", "C/doc/y": b"y"}
    assert tree(tmp_path / "to") == both


def test_moving_can_be_interrupted_anywhere(tmp_path, monkeypatch):
    files = {"C/a/1": b"1", "C/a/2": b"2", "C/b/3": b"3", "C/README": b"r", "LICENSE": b"l"}
    rename, left = os.rename, 0

    def stopping(source, target):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", stopping)
    for renames in range(4):
        place = tmp_path / str(renames)
        write_tree(place / "tree", files)
        left = renames
        with pytest.raises(KeyboardInterrupt):
            move_into(place / "tree", place / "to", ["C/a", "C/b"])
        left = 9
        assert move_into(place / "tree", place / "to", ["C/a", "C/b"]) == []
        assert tree(place / "to") == files
    assert renames == 3 and left == 9 - 1


def test_contents_never_take_the_place_of_something_else(tmp_path):
    for what in ("a directory", "an empty directory", "a file", "a dangling link"):
        place = tmp_path / what
        write_tree(place / "tree", {"C/a/1": b"1"})
        target = place / "to" / "C" / "a"
        target.parent.mkdir(parents=True)
        if what.endswith("directory"):
            target.mkdir()
        elif what == "a file":
            target.write_bytes(b"")
        else:
            target.symlink_to("nowhere")
        if what == "a directory":
            (target / "mine").write_bytes(b"mine")
        before = tree(place)
        with pytest.raises(UserError, match="in the way"):
            move_into(place / "tree", place / "to", ["C/a"])
        assert tree(place) == before
