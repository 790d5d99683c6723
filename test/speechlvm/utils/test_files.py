import json
import os
import shutil
import subprocess

import pytest

from speechlvm.utils.errors import UserError
from speechlvm.utils.files import (
    atomic_write,
    bytes_in,
    check_space,
    hash_value,
    is_done,
    mark_done,
    mark_undone,
    read_json,
    remove_leftovers,
    write_json,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a" / "file"
    with atomic_write(path) as stream:
        stream.write("old")
    with pytest.raises(RuntimeError), atomic_write(path) as stream:
        stream.write("new")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("number", [28, 27, 122])
def test_no_space_is_one_line_with_what_is_needed_and_what_is_free(tmp_path, number):
    expected = r"file: .* while writing; at least 1001 bytes are needed, .*\d+ bytes are free; free some"
    with pytest.raises(UserError, match=expected) as caught, atomic_write(tmp_path / "x" / "file", "wb") as stream:
        stream.write(bytes(1000))
        stream.flush()
        raise OSError(number, os.strerror(number))
    assert ("ulimit -f" in str(caught.value)) == (number == 27) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="at least 70000 bytes"), atomic_write(tmp_path / "x" / "file", size=70000):
        raise OSError(number, os.strerror(number))
    assert not os.listdir(tmp_path / "x")


def test_space_is_checked_before(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    check_space(tmp_path / "a" / "b", free // 2)
    expected = r"/a/b: a dump: about \d+ bytes are needed and \d+ are free; free some space, or choose another"
    with pytest.raises(UserError, match=expected):
        check_space(tmp_path / "a" / "b", 10 * free, "a dump")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(bytes(1000))
    assert bytes_in(tmp_path) == bytes_in(tmp_path / "a") == 1000 and bytes_in(tmp_path / "nowhere") == 0
    check_space(tmp_path / "a" / "b", 10 * free, "a dump", present=10 * free)


def test_no_permission(tmp_path):
    with pytest.raises(UserError, match="cannot be written"), atomic_write(tmp_path / "file"):
        raise PermissionError(13, "Permission denied")


def test_json_keeps_all_digits_and_refuses_nan(tmp_path):
    value = {"a": 0.1 + 0.2, "b": 1e-300}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert read_json(tmp_path / "x.json") == value
    (tmp_path / "x.json").write_text('{"a": ')
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(tmp_path / "x.json")
    with pytest.raises(UserError, match=r"y\.json: missing"):
        read_json(tmp_path / "y.json")


def test_done_means_done_with_these_inputs(tmp_path):
    assert not is_done(tmp_path, {"a": 1})
    mark_done(tmp_path, {"a": 1, "b": (1, 2)})
    assert is_done(tmp_path, {"b": [1, 2], "a": 1}) and not is_done(tmp_path, {"a": 2, "b": [1, 2]})
    (tmp_path / "done.json").write_text(json.dumps({"a": 1})[:-1])
    assert not is_done(tmp_path, {"a": 1})
    mark_undone(tmp_path)
    mark_undone(tmp_path)
    assert not is_done(tmp_path, {"a": 1})


def test_hash_does_not_depend_on_key_order():
    assert hash_value({"a": 1, "b": 2}) == hash_value({"b": 2, "a": 1}) != hash_value({"a": 1, "b": 3})


def test_only_what_killed_processes_left_is_removed(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    left, folder = tmp_path / f"below/.a b.wav.{dead.pid}.tmp", tmp_path / f".data.{dead.pid}.tmp"
    kept = [tmp_path / name for name in (f"below/.a.wav.{os.getpid()}.tmp", "below/.mine.tmp", "a.wav", ".x.1.tmp")]
    left.parent.mkdir()
    folder.mkdir()
    for path in (left, *kept):
        path.write_bytes(b"x")
    remove_leftovers(tmp_path)
    assert not left.exists() and not folder.exists() and all(path.exists() for path in kept)
    remove_leftovers(tmp_path / "nowhere")


def test_a_killed_process_that_nobody_has_waited_for_is_dead(tmp_path):
    with subprocess.Popen(["sleep", "60"]) as killed:
        (tmp_path / f".a.json.{killed.pid}.tmp").write_text("half")
        killed.kill()
        os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
        mark_done(tmp_path, {})
    assert os.listdir(tmp_path) == ["done.json"]
