"""Hostile YAML: nothing is run, nothing blocks, and what is wrong is one line."""

import os
import signal
from pathlib import Path

import pytest

from speechlvm.experiment import config
from speechlvm.utils.errors import ConfigError


def _refused(path, overrides=()):
    with pytest.raises(ConfigError) as error:
        config.load_config(path, list(overrides))
    message = str(error.value)
    assert "\n" not in message and len(message) < 800
    return message


@pytest.mark.parametrize(
    "text",
    [
        "model: !!python/object/apply:os.system ['touch CANARY']",
        "!!python/object/apply:os.system ['touch CANARY']",
        "model: !!python/object/new:os.system ['touch CANARY']",
        "model: !!python/name:os.system",
        "model: !!python/module:os",
        "!<tag:yaml.org,2002:python/object/apply:os.mkdir> [CANARY]",
        "%TAG !p! tag:yaml.org,2002:python/\n---\nmodel: !p!object/apply:os.mkdir [CANARY]",
        "model: !own lstm",
        "model: ! lstm",
        "model: !!bool lstm",
        "model: !!binary bHN0bQ==",
        "? !!python/object/apply:os.mkdir [CANARY]\n: x",
        "model: {? [a] : b}",
        "<<: {model: lstm}",
        "a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]",
        "a: &a {b: *a}",
        "model: lstm\nmodel: lstm",
        "model: lstm\n'model': lstm",
        "model: lstm\n---\nmodel: lstm",
        "[" * 20_000,
        "{a: " * 20_000,
        "- " * 20_000,
        "model: 2001-99-99",
        "model: \0",
        "model: " + "9" * 5000,
        "model: 0x" + "f" * 5000,
        "model: 0o" + "7" * 9999,
        'model: "\\U00110000"',
    ],
    ids=lambda text: text[:30],
)
def test_yaml_runs_nothing_and_is_refused_in_one_line(tiny_config, tmp_path, text):
    canary, path = tmp_path / "canary", tmp_path / "evil.yaml"
    path.write_text(text.replace("CANARY", str(canary)))
    message = _refused(path)
    assert message.startswith(f"{path}:")
    assert not canary.exists()
    given = tiny_config()
    if "\n" not in text:  # as the value of an option
        _refused(given, [("data.workers", text.replace("CANARY", str(canary)))])
        assert not canary.exists()


@pytest.fixture
def in_time():
    """What blocks fails."""

    def late(*_):
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def test_what_is_no_small_file_is_not_read(tmp_path, in_time):
    sparse = tmp_path / "sparse.yaml"
    with open(sparse, "wb") as stream:
        stream.truncate(100_000_000)
    assert "100000000 bytes; a configuration has at most" in _refused(sparse)
    os.mkfifo(tmp_path / "pipe.yaml")  # would block
    for path in (tmp_path / "pipe.yaml", Path("/dev/null")):
        assert "not a regular file" in _refused(path)
