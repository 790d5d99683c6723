import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest

from speechlvm.utils.errors import UserError
from speechlvm.utils.lock import locked

HOLD = """import sys, time
from speechlvm.utils.lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_told_who_holds_the_directory_and_a_dead_one_holds_nothing(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        who = (
            rf"in use by {socket.gethostname()} process {first.pid} since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d; wait for it"
        )
        with pytest.raises(UserError, match=who), locked(tmp_path):
            raise AssertionError
        os.kill(first.pid, signal.SIGKILL)
    with locked(tmp_path):
        assert f"process {os.getpid()} since" in (tmp_path / "lock").read_text()


def test_one_that_ends_by_itself_leaves_no_name(tmp_path, capsys):
    with locked(tmp_path):
        pass
    assert (tmp_path / "lock").read_text() == ""
    with locked(tmp_path):
        pass
    assert capsys.readouterr().err == ""


def test_a_run_on_another_host_that_did_not_end_by_itself_is_named(tmp_path, capsys):
    (tmp_path / "lock").write_text("elsewhere process 12 since 2026-01-01 00:00:00\n")
    with locked(tmp_path):
        assert "elsewhere process 12 since 2026-01-01 00:00:00 did not exit properly" in capsys.readouterr().err


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(UserError, match=r"lock: this file system has no locks \(No locks available\)"),
        locked(tmp_path),
    ):
        raise AssertionError
