"""What the preparations of all corpora share."""

import os

import numpy as np
import pytest

from speechlvm.data.preparation import files_below, misaligned_frames
from speechlvm.errors import UserError


def test_files_below_follows_links_and_searches_nothing_twice(tmp_path):
    root, other = tmp_path / "a corpus", tmp_path / "another disk"
    for path in (root / "b" / "2.xml", root / "b" / "1.xml", root / "top.txt", other / "3.xml"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / "a link").symlink_to(other)
    (root / "b" / "up").symlink_to("..")
    found = [str(path.relative_to(root)) for path in files_below(root)]
    assert found == ["top.txt", "a link/3.xml", "b/1.xml", "b/2.xml"]


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
