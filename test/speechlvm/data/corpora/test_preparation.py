"""What the preparations of all corpora share."""

import os

import numpy as np
import pytest

from speechlvm.data.corpora.preparation import corpus_files, find_corpus, misaligned_frames, stamp
from speechlvm.data.log import Log
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import files_below


def test_files_below_follows_links_and_searches_nothing_twice(tmp_path):
    root, other = tmp_path / "a corpus", tmp_path / "another disk"
    for path in (root / "b" / "2.xml", root / "b" / "1.xml", root / "top.txt", other / "3.xml"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / "a link").symlink_to(other)
    (root / "b" / "up").symlink_to("..")
    found = [str(path.relative_to(root)) for path in files_below(root)]
    assert found == ["top.txt", "a link/3.xml", "b/1.xml", "b/2.xml"]
    log = Log()
    files = corpus_files(log, root / "b", root / "top.txt", root / "none")
    assert files == [root / "b/1.xml", root / "b/2.xml", *files[2:4], root / "top.txt"]
    assert files[2:4] == [root / "b/up/top.txt", root / "b/up/a link/3.xml"]
    assert log.tolerated == {"links to folders that are searched anyway were skipped": [str(root / "b/up/b")]}


def test_the_stamp_of_files_tells_others_of_the_same_size_and_time(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (1, 1))
    stamps = []
    for target in ("a", "b", "none", "a"):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(target)
        stamps.append(stamp([tmp_path / "link"]))
    assert len(set(stamps)) == 3 and stamps[0] == stamps[3]


def test_a_directory_that_cannot_be_searched_is_no_empty_one(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def scan(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(UserError, match="closed: cannot be searched \\(Permission denied\\); check its permissions"):
        list(files_below(tmp_path))


def test_lost_bytes_are_seen():
    time = np.arange(16000) / 16000
    speech = np.rint(3000 * np.sin(2 * np.pi * 200 * time)).astype("<i2")
    data = speech.tobytes()
    assert misaligned_frames(speech) == 0
    assert misaligned_frames(np.random.default_rng(0).integers(-32768, 32768, 16000).astype(np.int16)) == 0
    damaged = np.frombuffer(data[:9999] + data[10000:] + b"\0", "<i2")
    assert 10000 <= misaligned_frames(damaged) <= 11200
    assert misaligned_frames(speech[:10]) == 0


def test_a_corpus_is_found_where_copies_lie(tmp_path):
    def find(given):
        return find_corpus(
            given, lambda place: (place / "TRAIN").is_dir(), ("TRAIN", "TEST"), "corpus", "a folder TRAIN"
        )

    root = tmp_path / "in/timit/data/lisa/data/timit/raw/TIMIT"
    for name in ("TRAIN", "TEST"):
        (root / name).mkdir(parents=True)
    (tmp_path / "in/archives/x/TRAIN").mkdir(parents=True)  # what an interrupted download left
    (tmp_path / "link").symlink_to(root)
    (root / "up").symlink_to(tmp_path / "in")
    assert [find(place) for place in (root, root / "TEST", tmp_path / "in", root.parents[3])] == [root] * 4
    assert find(tmp_path / "link") == tmp_path / "link"
    with pytest.raises(UserError, match="none: no such directory; give that of the corpus, or one above it"):
        find(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no corpus; looked for a folder TRAIN in it and up to 8 folders below"):
        find(tmp_path / "empty")
    for name in ("b", "c"):
        (tmp_path / "in" / name / "TRAIN").mkdir(parents=True)
    with pytest.raises(UserError, match="more than one corpus: .*/in/b and .*/in/c; give one of them"):
        find(tmp_path / "in")
