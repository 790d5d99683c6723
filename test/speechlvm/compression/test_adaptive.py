"""Files of the adaptive reference, through the programs."""

import subprocess
import sys

import numpy as np
import pytest
from programs import call

from speechlvm.bin import compress, decompress
from speechlvm.compression import adaptive
from speechlvm.compression.container import read_container, read_stream, write_container
from speechlvm.compression.rans import Stacks
from speechlvm.compression.tables import PRECISION
from speechlvm.data.audio import read_audio, write_wav
from speechlvm.models.adaptive import Adaptive

LIMIT = 32767


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file, what is in it, and what the program said."""
    root, draws = tmp_path_factory.mktemp("adaptive"), np.random.default_rng(0)
    pcm = {
        "speech": np.rint(np.cumsum(draws.laplace(0, 80, 3000)) * 0.3).clip(-LIMIT, LIMIT),
        "silence": np.zeros(700),
        "noise": draws.integers(-LIMIT - 1, LIMIT + 1, 300),
        "alternating": np.resize([LIMIT, -LIMIT - 1], 400),
        "one": np.array([-LIMIT - 1]),
    }
    pcm = {name: values.astype(np.int16) for name, values in pcm.items()}
    for name, values in pcm.items():
        write_wav(root / "in" / f"{name}.wav", values, 16000)
    done = call(compress.main, "--adaptive", "--wav", root / "in", "--out", root / "file")
    assert done.returncode == 0, done.stderr
    return root / "file", pcm, done.stdout


def test_another_process_gives_back_every_bit(file, tmp_path):
    path, pcm, _ = file
    command = [sys.executable, "-m", "speechlvm.bin.decompress", str(path), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    for name, values in pcm.items():
        np.testing.assert_array_equal(read_audio(tmp_path / f"{name}.wav"), values)


def test_it_is_as_long_as_the_likelihood_says(file):
    path, pcm, said = file
    bits = sum(-Adaptive().nats(values) for values in pcm.values()) / np.log(2)
    frames = sum(map(len, pcm.values()))
    _, entries = read_container(path)
    assert 0 < 8 * sum(entry.size for entry in entries) - bits < 0.001 * bits + 8 * 16 * len(pcm)
    assert f"model, exact       {bits / frames:9.4f} bits per frame" in said


def test_streams_are_those_of_stacks_that_are_pushed_in_numpy(file):
    path, pcm, _ = file
    entry = next(entry for entry in read_container(path)[1] if entry.utterance == "speech")
    first, frequency, _ = adaptive._intervals(adaptive.start(), pcm["speech"].astype(np.int64))
    stacks = Stacks.empty(1)
    for t in reversed(range(len(first))):
        stacks.push(np.array([0]), first[t : t + 1], frequency[t : t + 1], PRECISION)
    assert read_stream(path, entry) == stacks.to_bytes(0)


def test_an_utterance_alone_and_damage(file, tmp_path):
    path, _, _ = file
    assert call(decompress.main, path, "--out", tmp_path / "one", "--utterance", "noise").returncode == 0
    assert [written.name for written in (tmp_path / "one").iterdir()] == ["noise.wav"]
    entry = next(entry for entry in read_container(path)[1] if entry.utterance == "silence")
    content = bytearray(path.read_bytes())
    content[entry.offset + 1] ^= 1
    (tmp_path / "damaged").write_bytes(content)
    done = call(decompress.main, tmp_path / "damaged", "--out", tmp_path / "rest")
    assert done.returncode == 1 and "silence: its " in done.stderr and "CRC-32" in done.stderr
    assert [written.name for written in (tmp_path / "rest").iterdir()] == ["speech.wav"]  # the longest is first


def test_other_settings_are_refused(file, tmp_path, monkeypatch):
    path, _, _ = file
    monkeypatch.setattr(adaptive, "model_hash", lambda: 64 * "0")
    done = call(decompress.main, path, "--out", tmp_path / "out")
    assert done.returncode == 1 and "speech: compressed with adaptive, model " in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_malformed_stream_with_right_checksums_is_one_line(file, tmp_path):
    path, _, _ = file
    header, entries = read_container(path)
    with write_container(tmp_path / "hostile", header, ["speech", "one"]) as add:
        add(entries[0].frames, entries[0].pcm_crc, read_stream(path, entries[0]))
        add(1, 0, b"\1" * 11)
    done = call(decompress.main, tmp_path / "hostile", "--out", tmp_path / "out")
    message = "one: malformed stream (11 bytes are no stack); compress again"
    assert (done.returncode, done.stderr) == (1, f"error: {tmp_path / 'hostile'}: {message}\n")
    assert [written.name for written in (tmp_path / "out").iterdir()] == ["speech.wav"]
