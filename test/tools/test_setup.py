"""The set-up's decisions and the environment's check, without building an environment."""

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"

spec = importlib.util.spec_from_file_location("check_install", TOOLS / "check_install.py")
check_install = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_install)


@pytest.fixture
def checkout(tmp_path):
    """A checkout with its set-up files only, in a path with blanks."""
    root = tmp_path / "a clone"
    (root / "tools").mkdir(parents=True)
    for path in [*TOOLS.glob("requirements*.txt"), TOOLS / "setup.sh", TOOLS / "check_install.py"]:
        shutil.copy(path, root / "tools")
    shutil.copy(ROOT / "setup.py", root)
    return root


def setup(root, *arguments, **environment):
    keep = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return subprocess.run(
        ["bash", root / "tools" / "setup.sh", *arguments],
        env={**keep, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def fake_environment(directory, script):
    """An environment whose python answers as `script` says."""
    python = directory / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
    python.chmod(0o755)
    return directory


# Answers for all that tools/setup.sh asks of an active environment that holds the pins.
GOOD = 'case "$*" in *"print(sys.version"*) echo "(3, 11)";; *check_install*) echo "all well: python 3.11";; esac'


def test_an_active_environment_that_fits_is_used_once_and_for_all(checkout, tmp_path):
    environment = fake_environment(tmp_path / "my env", GOOD)
    done = setup(checkout, "--extras", "mini", VIRTUAL_ENV=str(environment))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"the active environment {environment} holds the pinned versions and is used" in done.stdout
    assert not (checkout / "tools" / "venv").exists()
    state = (checkout / "tools" / ".environment").read_text(encoding="utf-8").splitlines()
    assert state[1:] == ["extras mini", f"{environment}/bin/python"]

    began = time.monotonic()
    again = setup(checkout, "--extras", "mini", VIRTUAL_ENV=str(environment))
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert time.monotonic() - began < 3.0  # 0.03 s on an idle machine
    assert setup(checkout, "--extras", "test", VIRTUAL_ENV=str(environment)).stdout != ""
    assert "extras mini test" in (checkout / "tools" / ".environment").read_text(encoding="utf-8")


def test_changed_pins_are_set_up_again(checkout, tmp_path):
    environment = fake_environment(tmp_path / "env", GOOD)
    setup(checkout, VIRTUAL_ENV=str(environment))
    with open(checkout / "tools" / "requirements.txt", "a", encoding="utf-8") as pins:
        pins.write("another==1.0\n")
    assert "is used" in setup(checkout, VIRTUAL_ENV=str(environment)).stdout


def test_an_active_environment_that_does_not_fit_is_left_alone(checkout, tmp_path):
    bad = 'case "$*" in *check_install*) echo "check_install: numpy is not installed; do" >&2; exit 1;; esac'
    environment = fake_environment(tmp_path / "env", bad)
    done = setup(checkout, VIRTUAL_ENV=str(environment), PYTHON="/bin/false")
    assert done.returncode == 1
    assert "is not used (numpy is not installed; do); tools/venv is" in done.stdout
    assert "PYTHON=/bin/false is not Python 3.10 to 3.13 with venv" in done.stderr


def test_no_python_is_one_line(checkout, tmp_path):
    for program in ("bash", "dirname", "cat", "cksum", "flock", "sort", "sed", "mkdir", "rm"):
        (tmp_path / program).symlink_to(shutil.which(program))
    done = setup(checkout, PATH=str(tmp_path))
    assert done.returncode == 1
    assert "no Python 3.10 to 3.13 with venv is on the PATH" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_clone_that_cannot_be_written_is_one_line(checkout, tmp_path):
    command = ["bash", checkout / "tools" / "setup.sh"]
    if os.geteuid() == 0:  # who may write everywhere
        if not shutil.which("setpriv"):
            pytest.skip("as root this needs setpriv")
        command = ["setpriv", "--inh-caps=-all", "--bounding-set=-dac_override", *command]
    (checkout / "tools").chmod(0o555)
    environment = {"PATH": os.environ["PATH"], "VIRTUAL_ENV": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    (checkout / "tools").chmod(0o755)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert (
        "tools cannot be written" in done.stderr and f"use a clone of your own, or deactivate {tmp_path}" in done.stderr
    )


def test_an_index_out_of_reach_is_one_line(checkout, tmp_path):
    # Its own tools/venv is a python that finds everything but the index.
    venv = checkout / "tools" / "venv"
    fake_environment(
        venv,
        'case "$*" in *sys.prefix*) echo "${0%/bin/python}";; *"print(sys.version"*) echo x;; '
        '*"pip install"*) echo "NewConnectionError: Failed to establish a new connection"; exit 1;; esac',
    )
    (venv / "pyvenv.cfg").write_text("", encoding="utf-8")
    done = setup(checkout, PYTHON=sys.executable)
    assert done.returncode == 1
    assert "the package index cannot be reached" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (checkout / "tools" / ".environment").exists()


@pytest.mark.parametrize(("arguments", "message"), [(["--extras", "gpu"], "unknown extra 'gpu'"), (["now"], "'now'")])
def test_wrong_usage(checkout, arguments, message):
    done = setup(checkout, *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_help(checkout):
    done = setup(checkout, "--help")
    assert done.returncode == 0
    assert "bash tools/setup.sh [--extras test,mini]" in done.stdout


def check(*arguments, tools=TOOLS):
    return subprocess.run(
        [sys.executable, tools / "check_install.py", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )


def test_check_reports_every_wrong_thing_and_what_to_do(checkout):
    (checkout / "tools" / "requirements.txt").write_text("numpy==0.1\nnonesuch==1.0\nPyYAML==6.0.3\n", encoding="utf-8")
    done = check("--pins", tools=checkout / "tools")
    assert done.returncode == 1
    assert "check_install: numpy" in done.stderr and "0.1 is wanted; run `bash tools/setup.sh`" in done.stderr
    assert "check_install: nonesuch is not installed" in done.stderr
    assert "PyYAML" not in done.stderr
    assert "Traceback" not in done.stderr


def test_check_never_throws(checkout):
    (checkout / "tools" / "requirements.txt").unlink()
    done = check(tools=checkout / "tools")
    assert done.returncode == 1
    assert "check_install: requirements: FileNotFoundError" in done.stderr
    assert "threads: torch uses" in done.stdout  # the other checks are made all the same
    assert "Traceback" not in done.stderr


def test_check_refuses_unknown_extras():
    assert check("--extras", "gpu").returncode == 2


def test_versions_fit_pins():
    for version, pin, expected in [
        ("2.11.0+cpu", "2.11.*", True),
        ("2.11.3", "2.11.*", True),
        ("2.12.0", "2.11.*", False),
        ("2.110.0", "2.11.*", False),
        ("1.2.3", "1.2.3", True),
        ("1.2.30", "1.2.3", False),
    ]:
        assert check_install.fits(version, pin) is expected, (version, pin)


@pytest.mark.parametrize("damage", ["missing", "short", "no record", None])
def test_damaged_packages_are_found(tmp_path, monkeypatch, damage):
    module, info = tmp_path / "thing.py", tmp_path / "thing-1.0.dist-info"
    info.mkdir()
    module.write_text("x = 1\n", encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n", encoding="utf-8")
    (info / "RECORD").write_text("thing.py,sha256=x,6\nthing-1.0.dist-info/RECORD,,\n", encoding="utf-8")
    if damage == "missing":
        module.unlink()
    elif damage == "short":
        module.write_text("x", encoding="utf-8")
    elif damage == "no record":
        (info / "RECORD").unlink()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "prefix", str(tmp_path.parent))
    assert list(check_install.damaged_packages()) == ([] if damage is None else ["thing-1.0"])
