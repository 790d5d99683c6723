"""What the preparations of all corpora share."""

import os

import pytest

from speechlvm.data.preparation import files_below
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
