"""Suites of measurements that cannot be made: one line that says why."""

import subprocess

import pytest

from speechlvm.bin import benchmark
from speechlvm.utils.errors import ConfigError, UserError


@pytest.fixture
def suite(tmp_path):
    """suite(text): runs a suite of this YAML."""

    def run(text):
        path = tmp_path / "suite.yaml"
        path.write_text(text, encoding="utf-8")
        return benchmark.main(["--suite", str(path)])

    return run


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{name: a, config: b}", "expected a list of measurements"),
        ("[{name: a, config: b}, {config: b}]", "measurement 2 lacks name"),
        ("[{name: a}]", "measurement 1 lacks config"),
        ("[{batch: 2}]", "measurement 1 lacks name and config"),
    ],
)
def test_what_a_measurement_lacks_is_named_before_any_is_made(suite, monkeypatch, text, message):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(ConfigError, match=f"suite.yaml: {message}"):
        suite(text)


@pytest.mark.parametrize(
    ("stderr", "message"),
    [("", "a: ended with status -9; out of memory?"), ("Traceback\nb.yaml: not there\n", "a: b.yaml: not there")],
)
def test_a_measurement_that_fails_says_why(suite, monkeypatch, stderr, message):
    failed = subprocess.CompletedProcess([], -9, stdout="", stderr=stderr)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UserError) as caught:
        suite("[{name: a, config: b}]")
    assert str(caught.value) == message
