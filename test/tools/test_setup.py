"""The setup's decisions and the environment's check, without building an environment."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"

spec = importlib.util.spec_from_file_location("check_install", TOOLS / "check_install.py")
check_install = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_install)


@pytest.fixture
def checkout(tmp_path):
    """A checkout with its setup files only, in a path with blanks."""
    root = tmp_path / "a clone"
    (root / "tools").mkdir(parents=True)
    for path in [TOOLS / "requirements.txt", TOOLS / "setup.sh", TOOLS / "check_install.py"]:
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
        timeout=1200,
        check=False,
    )


def fake_environment(directory, script):
    """An environment whose python answers as `script` says."""
    python = directory / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
    python.chmod(0o755)
    return directory


# A venv whose python answers tools/setup.sh's questions as a whole one does; check_install is what the tests say.
VENV = 'case "$*" in *sys.prefix*) echo "${{0%/bin/python}}";; *check_install*) {check};; esac'


@pytest.fixture
def venv(checkout):
    """tools/venv of the checkout, whose check is a shell command."""

    def make(check):
        fake_environment(checkout / "tools" / "venv", VENV.format(check=check))
        (checkout / "tools" / "venv" / "pyvenv.cfg").write_text("", encoding="utf-8")

    return make


def test_what_passed_the_check_is_not_checked_again_until_the_lock_changes(checkout, venv):
    venv('echo called >>"${0%/venv/bin/python}/calls"; echo "ok: python 3.11"')
    calls = checkout / "tools" / "calls"
    first, second = setup(checkout), setup(checkout)
    assert (first.returncode, first.stderr) == (0, "")
    assert "environment ready after" in first.stdout and "ok: python 3.11" in first.stdout
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert calls.read_text(encoding="utf-8").count("called") == 1
    with open(checkout / "tools" / "requirements.txt", "a", encoding="utf-8") as pins:
        pins.write("another==1.0 --hash=sha256:0\n")
    setup(checkout)
    assert calls.read_text(encoding="utf-8").count("called") == 2


def test_an_environment_that_cannot_be_repaired_is_one_line_and_never_ready(checkout, venv):
    venv("echo 'check_install: torchaudio: import torchaudio: OSError: undefined symbol'; exit 1")
    for _ in range(2):
        done = setup(checkout)
        assert done.returncode == 1
        assert "check_install: torchaudio: import torchaudio: OSError: undefined symbol; log: " in done.stderr
        assert done.stderr.count("\n") == 1


def test_no_python_is_one_line(checkout, tmp_path):
    for program in ("bash", "dirname", "cat", "cksum", "flock", "sort", "sed", "mkdir", "rm"):
        (tmp_path / program).symlink_to(shutil.which(program))
    done = setup(checkout, PATH=str(tmp_path))
    assert done.returncode == 1
    assert "no Python 3.11 to 3.14 with venv is on the PATH" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_clone_that_cannot_be_written_is_one_line(checkout):
    command = ["bash", checkout / "tools" / "setup.sh"]
    if os.geteuid() == 0:  # who may write everywhere
        if not shutil.which("setpriv"):
            pytest.skip("as root this needs setpriv")
        command = ["setpriv", "--inh-caps=-all", "--bounding-set=-dac_override", *command]
    (checkout / "tools").chmod(0o555)
    done = subprocess.run(
        command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=1200, check=False
    )
    (checkout / "tools").chmod(0o755)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "tools is not writable" in done.stderr and "use your own clone" in done.stderr


def test_an_index_out_of_reach_is_one_line(checkout, venv):
    venv('echo "NewConnectionError: Failed to establish a new connection"; exit 1')
    done = setup(checkout)
    assert done.returncode == 1
    assert "the package index cannot be reached" in done.stderr
    assert done.stderr.count("\n") == 1


def test_wrong_usage_and_help(checkout):
    done = setup(checkout, "now")
    assert (done.returncode, "'now'; usage: bash tools/setup.sh" in done.stderr) == (2, True)
    assert "bash tools/setup.sh" in setup(checkout, "--help").stdout


def test_the_lock_has_one_version_and_hashes_of_everything():
    text = check_install.LOCK.read_text(encoding="utf-8")
    assert "--index" not in text and "://" not in text and " @ " not in text
    names, pin = [], re.compile(r"([a-z0-9-]+)==\d[\w.]*( ; [^-]*?)?( +--hash=sha256:[0-9a-f]{64})+")
    for requirement in re.sub(r" \\\n", " ", text).splitlines():
        if requirement.strip().startswith("#"):
            continue
        name, marker, _ = pin.fullmatch(requirement).groups()
        assert "python" not in (marker or ""), f"{name}: another version for another Python"
        names.append(name)
    assert len(set(names)) == len(names) > 50


def test_the_lock_has_what_setup_py_asks_for():
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    asked = dict(re.findall(r'"([A-Za-z][\w-]*)((?:[<>=]=?[\d.]+,?)+)', text))
    pins = {name: pin.version for name, pin in check_install.read_lock().items()}
    assert asked["torch"] == asked["torchaudio"] == "==2.11.0"  # a pair that was seen to load
    del asked["huggingface_hub"]  # only for uploads
    for name, versions in asked.items():
        assert Requirement(f"{name}{versions}").specifier.contains(pins[check_install.canonical(name)]), name


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Packages on a path of their own, and pip that records what it is asked to install."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setattr(sys, "path", [str(site), *(path for path in sys.path if "site-packages" not in path)])
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    calls = []

    def pip(*arguments):
        calls.append(Path(arguments[-1]).read_text(encoding="utf-8"))
        for name, version in re.findall(r"^([\w-]+)==(\S+)", calls[-1], re.M):
            package(site, name, version)

    monkeypatch.setattr(check_install, "pip", pip)
    monkeypatch.setattr(check_install, "failing_imports", dict)
    return site, calls


def package(site, name, version):
    """Writes a package of one module with its record."""
    for old in site.glob(f"{name}-*"):
        shutil.rmtree(old)
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    (site / f"{name}.py").write_text("x = 1\n", encoding="utf-8")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    (info / "RECORD").write_text(f"{name}.py,sha256=x,6\n", encoding="utf-8")
    return info


PINS = {name: check_install.Pin("1.0", f"{name}==1.0 --hash=sha256:0") for name in ("one", "two", "three")}


@pytest.mark.parametrize("damage", ["absent", "version", "missing", "short", "no record", "no metadata"])
def test_what_differs_from_the_lock_is_installed_from_it(environment, capsys, damage):
    site, calls = environment
    package(site, "one", "1.0")
    package(site, "three", "1.0+cpu")
    if damage != "absent":
        info = package(site, "two", "1.1" if damage == "version" else "1.0")
    if damage == "missing":
        (site / "two.py").unlink()
    elif damage == "short":
        (site / "two.py").write_text("x", encoding="utf-8")
    elif damage == "no record":
        (info / "RECORD").unlink()
    elif damage == "no metadata":
        (info / "METADATA").unlink()
    assert check_install.repair(PINS) == {}
    assert calls == ["two==1.0 --hash=sha256:0\n"]
    assert "installing  two: " in capsys.readouterr().out


def test_what_cannot_be_imported_is_installed_again_once(environment, monkeypatch):
    site, calls = environment
    for name in PINS:
        package(site, name, "1.0")
    failures = iter([{"two": "import two: OSError: undefined symbol"}] * 2)
    monkeypatch.setattr(check_install, "failing_imports", lambda: next(failures))
    assert check_install.repair(PINS) == {"two": "import two: OSError: undefined symbol"}
    assert calls == ["two==1.0 --hash=sha256:0\n"]


def test_another_environment_is_left_alone(checkout):
    command = [sys.executable, checkout / "tools" / "check_install.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not in tools/venv; use tools/venv/bin/python" in done.stderr


def test_an_import_that_fails_is_reported_whatever_it_raises(monkeypatch):
    monkeypatch.setattr(check_install, "MODULES", {"a": "sys", "b": "no_such_module", "c": "this"})
    assert check_install.failing_imports() == {
        "b": "import no_such_module: ModuleNotFoundError: No module named 'no_such_module'"
    }
