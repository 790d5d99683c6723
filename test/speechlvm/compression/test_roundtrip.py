"""The program of stage 9: what it writes of a model or the adaptive reference, and that nothing passes unverified."""

import json
import math
from types import SimpleNamespace

import pytest
from programs import call

from speechlvm.bin import roundtrip
from speechlvm.compression.container import read_container
from speechlvm.data.dumps import open_dump
from speechlvm.models.adaptive import Adaptive
from speechlvm.models.flac import FLAC
from speechlvm.reporting.collect import files_of

LENGTHS = [300, 700, 133, 1, 512, 350]


@pytest.fixture(scope="module")
def dump(make_dump_in, tmp_path_factory):
    return make_dump_in(tmp_path_factory.mktemp("sets") / "test", LENGTHS, seed=90)


def model_of(trained, system):
    return ["--adaptive"] if system == "adaptive" else ["--exp", trained(system)]


@pytest.mark.parametrize(("system", "coding"), [("adaptive", "linear"), ("lstm", "mulaw-pcm"), ("vrnn", "mulaw-pcm")])
def test_what_it_writes(trained, dump, tmp_path, system, coding):
    out = tmp_path / "compressed_test"
    words = [*model_of(trained, system), "--dump", dump, "--out", out, "--utterances", 4]
    assert call(roundtrip.main, *words, "--check").returncode == 1
    done = call(roundtrip.main, *words)
    assert (done.returncode, done.stderr) == (0, "")
    [file] = files_of(tmp_path, errors := [])
    assert errors == []
    header, entries = read_container(out / "utterances.slvm")
    assert {entry.utterance for entry in entries} == {"u00", "u01", "u03", "u04"}
    latent = system == "vrnn"
    assert (file.model, file.system, file.set, file.coding) == (system, system, "test", coding)
    assert (file.bound, file.seed) == ("elbo" if latent else "exact", None if system == "adaptive" else 1)
    assert (file.utterances, file.frames, file.rate_hz, file.lanes) == (4, 300 + 700 + 1 + 512, 16000, header.lanes)
    assert file.file_bytes == (out / "utterances.slvm").stat().st_size
    assert file.stream_bits + file.initial_bits + file.header_bits == 8 * file.file_bytes
    assert file.header_bits == 8 * entries[0].offset and (file.initial_bits > 0) == latent
    assert 0 < file.stream_bits - file.table_bits < ((32 + 24 + 2) * 64 if latent else 4 * 96)  # ends of stacks
    assert file.overhead == pytest.approx((8 * file.file_bytes - file.initial_bits) / file.model_bits - 1)
    opened = open_dump(dump)
    pcm = [opened.read(entry.utterance) for entry in entries]
    assert file.flac_bytes == sum(map(FLAC().bytes, pcm)) and file.data_hash == opened.info["data_hash"]
    if system == "adaptive":
        assert file.model_bits == pytest.approx(-sum(map(Adaptive().nats, pcm)) / math.log(2))
    assert "1513 frames, bit-identical when decompressed\nmodel, " in done.stdout
    assert done.stdout.count(" times real time\n") == 2


def test_nothing_is_done_twice_and_changes_are_noticed(dump, tmp_path, monkeypatch):
    words = ["--adaptive", "--dump", dump, "--out", tmp_path]
    assert call(roundtrip.main, *words, "--utterances", 2).returncode == 0
    with monkeypatch.context() as patched:
        patched.setattr(roundtrip, "_make", lambda arguments: pytest.fail("once more"))
        assert call(roundtrip.main, *words, "--utterances", 2).stdout == f"{tmp_path}: complete\n"
        assert call(roundtrip.main, *words, "--utterances", 2, "--check").returncode == 0
        assert call(roundtrip.main, *words, "--check").returncode == 1
    assert call(roundtrip.main, *words, "--utterances", "all").returncode == 0
    assert json.loads((tmp_path / "result.json").read_text())["utterances"] == len(LENGTHS)
    assert call(roundtrip.main, *words, "--utterances", "some").returncode == 2


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("happens", "message"),
    [(flipped, "bytes are damaged (CRC-32)"), (cut, "the file ends after"), (None, "not the samples in")],
)
def test_what_does_not_come_back_has_no_result(dump, make_dump, tmp_path, monkeypatch, happens, message):
    words = ["--adaptive", "--dump", dump, "--out", tmp_path / "out"]
    (tmp_path / "out").mkdir()
    for name in ("result.json", "done.json"):  # of before
        (tmp_path / "out" / name).write_text("{}")
    compare, other = roundtrip._compare, make_dump("other", LENGTHS, seed=91)

    def disturbed(arguments, path):
        if happens is None:
            return compare(SimpleNamespace(exp=None, dump=other), path)
        happens(path)
        return compare(arguments, path)

    monkeypatch.setattr(roundtrip, "_compare", disturbed)
    done = call(roundtrip.main, *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"error: {tmp_path}/out/utterances.slvm: u") and message in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["utterances.slvm"]
