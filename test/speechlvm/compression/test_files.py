"""Files of compressed utterances, through the programs: round trips, sizes, damage, and what is refused."""

import math
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from programs import call

from speechlvm.bin import compress, decompress
from speechlvm.compression import codec
from speechlvm.compression.container import read_container
from speechlvm.data.audio import read_audio, write_wav
from speechlvm.data.dumps import open_dump
from speechlvm.experiment.load import load_experiment
from speechlvm.scoring.score import score_dump

LENGTHS = {
    "lstm": [300, 700, 133, 1, 16, *range(100, 400, 20)],
    "wavenet": [200, 100, 1, *range(50, 120, 4)],
    "experts": [200, 100, 1, *range(50, 120, 8)],
}
LANES = 4


@pytest.fixture(scope="module")
def dumps(make_dump_in, tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    return {system: make_dump_in(root / system, lengths, seed=90) for system, lengths in LENGTHS.items()}


@pytest.fixture(scope="module", autouse=True)
def loaded_once():
    """What the programs load."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(codec, "load_codec", cache(codec.load_codec))
        yield


@pytest.fixture(scope="module")
def files(trained, dumps, tmp_path_factory):
    """System -> a file, the dump that is in it, and what the program said."""
    made = {}
    for system, dump in dumps.items():
        path = tmp_path_factory.mktemp(system) / "set.slvm"
        done = call(compress.main, "--exp", trained(system), "--dump", dump, "--out", path, "--lanes", LANES)
        assert done.returncode == 0, done.stderr
        made[system] = path, open_dump(dump), done.stdout
    return made


def decompressed(trained, system, path, out, *options):
    """Names of the files that are written, and the last line of errors."""
    done = call(decompress.main, "--exp", trained(system), path, "--out", out, *options)
    assert done.returncode == (1 if done.stderr else 0) and done.stderr.count("\n") <= 1
    return sorted(file.stem for file in out.glob("*")), done.stderr


def check(out, dump, names):
    assert sorted(file.name for file in out.glob("*")) == sorted(f"{name}.wav" for name in names)
    for name in names:
        np.testing.assert_array_equal(read_audio(out / f"{name}.wav"), dump.read(name))


@pytest.mark.parametrize("system", LENGTHS)
def test_another_process_gives_back_every_bit(trained, files, system, tmp_path):
    path, dump, _ = files[system]
    words = ["--exp", trained(system), path, "--out", tmp_path / "out"]
    command = [sys.executable, "-m", "speechlvm.bin.decompress", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0 and done.stdout.startswith(f"{tmp_path / 'out'}: {len(dump.records)} utter"), (
        done.stderr
    )
    check(tmp_path / "out", dump, list(dump.records))


@pytest.mark.parametrize("system", LENGTHS)
def test_files_are_as_long_as_the_likelihood_says(trained, files, system):
    path, dump, said = files[system]
    experiment = load_experiment(trained(system), coding="mulaw-pcm" if system == "lstm" else None)
    scores = list(score_dump(experiment.model.double(), experiment.observation, dump))
    bits = -math.fsum(score.nats for score in scores) / math.log(2)
    assert 0 < 8 * path.stat().st_size - bits < 0.001 * bits + 8 * 64 * len(scores)
    bits_per_frame = bits / dump.frames
    assert f"model, exact       {bits_per_frame:9.4f} bits per frame" in said
    assert f"file               {8 * path.stat().st_size / dump.frames:9.4f} bits per frame" in said


@pytest.mark.parametrize("system", LENGTHS)
def test_one_utterance_is_decoded_alone(trained, files, system, tmp_path):
    path, dump, _ = files[system]
    for name in ("u00", "u05"):
        assert decompressed(trained, system, path, tmp_path / name, "--utterance", name) == ([name], "")
        check(tmp_path / name, dump, [name])
    names, error = decompressed(trained, system, path, tmp_path / "none", "--utterance", "u99")
    shown = ", ".join(entry.utterance for entry in read_container(path)[1][:5])
    assert names == [] and error == f"error: {path}: has no utterance 'u99'; it has {shown}, ...\n"


def places(path):
    """What is in a file: name -> its first byte."""
    header, entries = read_container(path)
    text = len(header.model_dump_json())
    return {
        "magic": 0,
        "size of the header": 8,
        "header": 12,
        "counts": 12 + text,
        "index": 20 + text,
        "CRC": entries[0].offset - 4,
        **{entry.utterance: entry.offset for entry in entries},
    }


def test_every_flipped_bit_is_found(trained, files, tmp_path):
    path, dump, _ = files["lstm"]
    content, starts = path.read_bytes(), places(path)
    order = [name for name in starts if name in dump.records]
    ends = [*list(starts.values())[1:], len(content)]
    chosen = [*list(starts)[:6], order[0], order[1], order[LANES + 1]]
    for number, (name, start, end) in enumerate(zip(starts, starts.values(), ends, strict=True)):
        if name not in chosen:
            continue
        for place in {start, (start + end) // 2, end - 1}:
            damaged, out = tmp_path / "damaged", tmp_path / f"{number}.{place}"
            damaged.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
            written, error = decompressed(trained, "lstm", damaged, out)
            if name in order:
                check(out, dump, order[: order.index(name)])
                assert f"{damaged}: {name}: its " in error and " bytes are damaged (CRC-32)" in error
            else:
                assert written == [] and error.startswith(f"error: {damaged}: ")


def test_what_is_before_a_cut_is_given_back(trained, files, tmp_path):
    path, dump, _ = files["lstm"]
    content, starts = path.read_bytes(), places(path)
    order = [name for name in starts if name in dump.records]
    for name, start in starts.items():
        if name in order and order.index(name) not in (0, 1, LANES, LANES + 1):
            continue
        for cut in (start, start + 1):
            damaged, out = tmp_path / "damaged", tmp_path / f"{name}.{cut}"
            damaged.write_bytes(content[:cut])
            written, error = decompressed(trained, "lstm", damaged, out)
            if name in order:
                check(out, dump, order[: order.index(name)])
                assert f"{damaged}: {name}: the file ends after {cut - start} of " in error
            else:
                assert written == [] and error.startswith(f"error: {damaged}: ")
    damaged.write_bytes(content + b"\0")
    assert "1 bytes more than its index says" in decompressed(trained, "lstm", damaged, tmp_path / "more")[1]


def test_another_model_is_refused(trained, files, tmp_path):
    path, _, _ = files["lstm"]
    done = call(decompress.main, "--exp", trained("wavenet"), path, "--out", tmp_path / "out")
    assert done.returncode == 1 and not (tmp_path / "out").exists()
    assert f"{path}: u01: compressed with lstm, model " in done.stderr
    assert "give the experiment that it was compressed with" in done.stderr
    done = call(decompress.main, path, "--out", tmp_path / "out")
    assert done.returncode == 1 and "compressed with lstm, a trained model; give its experiment as --exp" in done.stderr


def test_other_arithmetic_is_found(trained, files, tmp_path, monkeypatch):
    path, dump, _ = files["lstm"]
    header, entries = read_container(path)
    load, decoded = codec.load_codec.__wrapped__, []

    def changed(directory):
        experiment = load(directory)
        monkeypatch.setattr(codec, "model_hash", lambda _: header.model)
        sample = experiment.model.sample

        def inexact(*arguments, choose, **options):
            decoded.append(None)
            nudge = 1 + 1e-6 * (len(decoded) > 1)  # from the second batch on
            return sample(*arguments, choose=lambda parameters: choose(parameters * nudge), **options)

        experiment.model.sample = inexact
        return experiment

    monkeypatch.setattr(codec, "load_codec", changed)
    written, error = decompressed(trained, "lstm", path, tmp_path / "out")
    names = [entry.utterance for entry in entries]
    failed = next(name for name in names if name not in written)
    assert LANES <= names.index(failed) < 2 * LANES
    check(tmp_path / "out", dump, names[: names.index(failed)])
    assert f"{path}: {failed}: decoded to other samples (CRC-32), as arithmetic differs; compressed with torch" in error


def test_it_is_compared_with_a_dump(trained, files, dumps, make_dump, tmp_path):
    path, dump, _ = files["lstm"]
    words = ("--exp", trained("lstm"), path, "--dump")
    done = call(decompress.main, *words, dumps["lstm"])
    assert done.returncode == 0, done.stderr
    assert f"as in {dumps['lstm']}: {len(dump.records)} utterances, {dump.frames} frames, " in done.stdout
    for other in (make_dump("other", LENGTHS["lstm"], seed=91), make_dump("fewer", LENGTHS["lstm"][:1], seed=90)):
        done = call(decompress.main, *words, other)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert f"{path}: u01: not the samples in {other}; give the dump that was compressed" in done.stderr


def test_audio_files_are_named_after_their_files(trained, tmp_path, speech_like):
    pcm = {"a": speech_like(100, 1), "b": speech_like(60, 2)}
    write_wav(tmp_path / "in" / "a.wav", pcm["a"], 16000)
    write_wav(tmp_path / "in" / "deep" / "b.wav", pcm["b"], 16000)
    words = ("--exp", trained("lstm"), "--out", tmp_path / "file")
    assert call(compress.main, *words, "--wav", tmp_path / "in").returncode == 0
    assert decompressed(trained, "lstm", tmp_path / "file", tmp_path / "out") == (["a", "b"], "")
    for name, samples in pcm.items():
        np.testing.assert_array_equal(read_audio(tmp_path / "out" / f"{name}.wav"), samples)
    again = call(compress.main, *words, "--wav", tmp_path / "in", tmp_path / "in" / "a.wav")
    assert again.returncode == 1 and "a.wav: has the name of " in again.stderr
    write_wav(tmp_path / "in" / "c.wav", pcm["a"], 8000)
    slow = call(compress.main, *words, "--wav", tmp_path / "in" / "c.wav")
    assert (
        slow.returncode == 1
        and "error: c: 8000 samples per second; the model of lstm expects 16000; convert" in slow.stderr
    )


def test_models_of_other_codings_are_refused(trained, dumps, tmp_path, monkeypatch):
    words = ("--dump", dumps["lstm"], "--out", tmp_path / "file")
    monkeypatch.setattr(codec, "load_codec", codec.load_codec.__wrapped__)
    monkeypatch.setattr(codec, "SAME_INPUTS", ())
    done = call(compress.main, "--exp", trained("lstm"), *words)
    assert done.returncode == 2 and "its coding, mulaw, does not tell all 65 536 PCM values apart" in done.stderr
    assert not (tmp_path / "file").exists()
