import bz2
import gzip
import io
import lzma
import os
import random
import stat
import tarfile
import zipfile

import pytest
from imitations.festvox_ru import ar_member

from speechlvm.data.corpora.unpack import unpack
from speechlvm.utils.errors import UserError

HONEST = {"C/a/1.flac": random.Random(0).randbytes(5000), "C/a/2.flac": b"", "C/README": b"read me"}
FORMATS = ["x.tar.gz", "x.zip", "x.deb"]


def tar_member(name, data=b"", kind=tarfile.REGTYPE, **attributes):
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, len(data)
    for key, value in attributes.items():
        setattr(member, key, value)
    return member, data


def pack(path, *members):
    """An archive of (name, TarInfo or ZipInfo, data), by its name; returns its path."""
    stream = io.BytesIO()
    if path.suffix == ".zip":
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
            for member, data in members:
                packed.writestr(member, data)
        path.write_bytes(stream.getvalue())
        return path
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as packed:
        for member, data in members:
            member = tar_member(member, data)[0] if isinstance(member, str) else member
            packed.addfile(member, io.BytesIO(data))
    if path.suffix == ".deb":
        data = lzma.compress(stream.getvalue())
        path.write_bytes(b"!<arch>\n" + ar_member("debian-binary", b"odd") + ar_member("data.tar.xz", data))
        return path
    path.write_bytes((bz2 if path.suffix == ".bz2" else gzip).compress(stream.getvalue()))
    return path


def files_in(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def refused(path, match, max_bytes=10**6):
    """Unpacking fails with one line, and outside of the directory nothing has changed."""
    target = path.parent / "new" / "files"
    target.mkdir(parents=True)
    before = set(path.parent.rglob("*"))
    with pytest.raises(UserError, match=match) as error:
        unpack(path, target, max_bytes)
    assert "\n" not in str(error.value) and str(error.value).startswith(f"{path}: ")
    assert {p for p in path.parent.rglob("*") if target not in p.parents} == before
    assert not any(p.is_symlink() for p in target.rglob("*"))


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x.tar.bz2", "x.zip", "X.ZIP", "x.deb"])
def test_honest_archives_up_to_the_limit(tmp_path, name):
    path = pack(tmp_path / name.lower(), *HONEST.items()).rename(tmp_path / name)
    (tmp_path / "new").mkdir()
    unpack(path, tmp_path / "new", sum(map(len, HONEST.values())))
    assert files_in(tmp_path / "new") == HONEST


@pytest.mark.parametrize("archive", FORMATS)
@pytest.mark.parametrize("name", ["../out", "C/../../out", "C/..", "HERE/out", "//HERE/out"])
def test_names_that_lead_elsewhere(tmp_path, archive, name):
    name = name.replace("HERE", str(tmp_path))
    refused(pack(tmp_path / archive, ("C/a", b"a"), (name, b"out")), "a path outside the target directory")


TAR_KINDS = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]


@pytest.mark.parametrize("kind,target", [(tarfile.SYMTYPE, "/etc"), *((kind, "C/a") for kind in TAR_KINDS)])
def test_tar_members_that_are_no_files(tmp_path, kind, target):
    link = tar_member("C/link", kind=kind, linkname=target)
    refused(pack(tmp_path / "x.tgz", ("C/a", b"a"), link, ("C/link/b", b"b")), "'C/link': a link or a device")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_zip_members_that_are_no_files(tmp_path, kind):
    member = zipfile.ZipInfo("C/link")
    member.external_attr = (kind | 0o777) << 16
    refused(pack(tmp_path / "x.zip", ("C/a", b"a"), (member, b"/etc")), "'C/link': a link or a device")


@pytest.mark.parametrize("archive", FORMATS)
@pytest.mark.parametrize("names", [["C/a", "C/a"], ["C/a", "./C/a"], ["C/a", "C/a/b"], ["C/a/b", "C/a"]])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_in_the_way_of_each_other(tmp_path, archive, names):
    path = pack(tmp_path / archive, *((name, name.encode()) for name in names))
    refused(path, "in the archive twice, or both")


def test_everything_reaches_the_disk(tmp_path, monkeypatch):
    synced, new = set(), tmp_path / "new"
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.add(os.readlink(f"/proc/self/fd/{descriptor}")))
    new.mkdir()
    unpack(pack(tmp_path / "x.zip", *HONEST.items()), new, 10**6)
    assert synced == {str(path) for path in (new, *new.rglob("*"))}


def test_modes_are_not_taken_over(tmp_path):
    member, new = zipfile.ZipInfo("D/1"), tmp_path / "new"
    member.external_attr = (stat.S_IFREG | 0o6777) << 16
    root, folder = (tar_member(name, kind=tarfile.DIRTYPE, mode=0) for name in ("./", "./C/"))
    new.mkdir()
    unpack(pack(tmp_path / "x.tgz", root, folder, tar_member("C/1", b"#!", mode=0o6777)), new, 10)
    unpack(pack(tmp_path / "x.zip", ("D/", b""), (member, b"#!")), new, 10)
    modes = [stat.S_IMODE((new / name).stat().st_mode) for name in ("C/1", "D/1", "C", "D")]
    assert modes == [0o644, 0o644, 0o755, 0o755]


@pytest.mark.parametrize("archive", FORMATS)
def test_bombs(tmp_path, archive):
    refused(pack(tmp_path / archive, ("C/a", b"a"), ("C/b", bytes(20_000_000))), "'C/b': more than the 1000000 bytes")
    assert (tmp_path / "new/files/C/b").stat().st_size < 2_000_000  # stopped, not measured afterwards


def test_a_size_that_leads_backwards(tmp_path):
    member, data = tar_member("C/a", b"abc")
    member.pax_headers = {"size": "-1024"}
    refused(pack(tmp_path / "x.tgz", ("C/0", b"0"), (member, data)), "damaged.*backwards")


@pytest.mark.parametrize("archive", [*FORMATS, "x.tar.bz2"])
@pytest.mark.parametrize("damage", ["cut", "cut at the end", "empty", "page", "other bytes"])
def test_damaged_archives(tmp_path, archive, damage):
    whole = pack(tmp_path / archive, *HONEST.items()).read_bytes()
    half = len(whole) // 2
    flipped = whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :]
    data = {"cut": whole[:half], "cut at the end": whole[:-5], "empty": b"", "page": b"<html>", "other bytes": flipped}
    (tmp_path / archive).write_bytes(data[damage])
    refused(tmp_path / archive, "damaged, or not of the type its name says")


def test_a_cut_archive_of_archives_is_not_taken_for_one_of_them(tmp_path):
    inner = pack(tmp_path / "inner.zip", *HONEST.items()).read_bytes()
    members = [(zipfile.ZipInfo(name), inner) for name in ("1.zip", "2.zip")]
    whole = pack(tmp_path / "x.zip", *members).read_bytes()
    (tmp_path / "x.zip").write_bytes(whole[: whole.index(inner) + len(inner) + 9])
    refused(tmp_path / "x.zip", "damaged.*before its first member")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("debian-binary", "4 "), ("data.tar.zst", "0")], "'data.tar.zst'; only data.tar.xz is read here; unpack it"),
        ([("debian-binary", "-60")], "damaged.*size '-60' of a member"),
        ([("debian-binary", "0")], "damaged.*no data.tar.xz in it"),
    ],
)
def test_packages_without_files(tmp_path, members, message):
    headers = "".join(f"{name:48}{size:<10}`\n" + " " * (size == "4 ") * 4 for name, size in members)
    (tmp_path / "x.deb").write_bytes(b"!<arch>\n" + headers.encode())
    refused(tmp_path / "x.deb", message)
