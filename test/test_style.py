"""Linters over everything, and the house rules that no linter knows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = Path(sys.executable).parent


def tracked(*suffixes):
    """Files of the project with these endings: git's, or all that git would not ignore in a checkout without it."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return sorted(path for path in paths if path.is_file() and (not suffixes or path.name.endswith(suffixes)))


def shell_scripts():
    bare = [path for path in tracked() if path.suffix == ""]
    return tracked(".sh") + [path for path in bare if path.read_bytes().startswith(b"#!/usr/bin/env bash")]


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def lint(*command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff():
    lint(PROGRAMS / "ruff", "check", "--output-format", "concise", ".")


def test_shellcheck():
    lint(PROGRAMS / "shellcheck", "--format", "gcc", *shell_scripts())


def test_every_script_is_strict_or_sourced():
    for path in shell_scripts():
        text = path.read_text(encoding="utf-8")
        if text.startswith("#!"):
            assert "\nset -euo pipefail\n" in text, path
        else:
            first, second = text.splitlines()[:2]
            assert first.startswith("# shellcheck shell=bash") and second.startswith("# Sourced"), path


def test_no_python_in_shell():
    for path in shell_scripts():
        assert not re.search(r"python[0-9.]* - *<<|<<.*(PY|PYTHON)\b", path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    ("folder", "suffix", "limit"), [("speechlvm/models", ".py", 400), ("speechlvm", ".py", 450), ("", ".sh", 250)]
)
def test_files_can_be_read_in_one_sitting(folder, suffix, limit):
    files = [path for path in tracked(suffix) if ROOT / folder in path.parents]
    assert files
    long = {str(p.relative_to(ROOT)): len(lines(p)) for p in files if len(lines(p)) > limit}
    assert long == {}


MACHINE_PATH = re.compile(r"(?<![\w.~$}-])/(?:work|farm|root|home|Users|mnt|scratch)/[\w.]")


def test_no_path_of_a_machine():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in tracked(".py", ".sh", ".md", ".yaml", ".toml", ".txt", ".cff")
        # RESULTS.md is what a run of a recipe wrote, with the paths it was given
        if path != Path(__file__).resolve() and path.name != "RESULTS.md"
        for number, line in enumerate(lines(path), 1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


def test_every_test_module_asserts():
    for path in tracked(".py"):
        if path.name.startswith("test_"):
            text = path.read_text(encoding="utf-8")
            assert "assert" in text or "pytest.raises" in text, path
