"""Sequences of vectors: archives as Kaldi has them, dumps that do not depend on the number of jobs, clear refusals."""

import json
import struct

import kaldiio
import numpy as np
import pytest
import torch

from speechlvm.data.dumps import features, open_dump, vectors
from speechlvm.data.dumps.dataset import Segment, read_batch
from speechlvm.data.dumps.dump import share_of
from speechlvm.data.kaldi import matrices
from speechlvm.data.kaldi.directory import DataDirectory, load_data_dir, write_data_dir
from speechlvm.data.kaldi.validate import validate
from speechlvm.observation import Observation
from speechlvm.utils.errors import ConfigError, UserError

CHANNELS = {"pen": "binary", "dx": "real", "dy": "real"}


def strokes(frames: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    offsets = generator.normal((1e4, -3.0), (2.0, 0.5), (frames, 2))
    return np.column_stack([generator.random(frames) < 0.2, offsets]).astype(np.float32)


ITEMS = {f"u{i}": strokes(frames, i) for i, frames in enumerate((7, 50, 1, 30))}


def dump_of(directory, items=ITEMS, jobs=1, rate_hz=None, channels=CHANNELS):
    for job in range(1, jobs + 1):
        vectors.write(directory, job, share_of(sorted(items.items()), job, jobs), channels, {})
    vectors.merge(directory, jobs, "data", channels, rate_hz)
    return open_dump(directory)


def test_archives_are_those_of_kaldi(tmp_path):
    feats, num_frames = matrices.write_vectors(tmp_path / "with blank", "train", ITEMS.items())
    assert num_frames == {"u0": 7, "u1": 50, "u2": 1, "u3": 30}
    for name, values in ITEMS.items():
        np.testing.assert_array_equal(kaldiio.load_mat(feats[name]), values)
        np.testing.assert_array_equal(matrices.read_vectors(feats[name]), values)
    kaldiio.save_ark(str(tmp_path / "theirs.ark"), ITEMS, scp=str(tmp_path / "theirs.scp"))
    for line in (tmp_path / "theirs.scp").read_text().splitlines():
        name, place = line.split(" ", 1)
        np.testing.assert_array_equal(matrices.read_vectors(place), ITEMS[name])


def test_a_data_directory_keeps_channels_and_rate(tmp_path):
    feats, num_frames = matrices.write_vectors(tmp_path, "train", ITEMS.items())
    for rate_hz in (120.0, 29.97003, None):
        data = DataDirectory(dict.fromkeys(ITEMS, "u"), feats=feats, num_frames=num_frames, channels=CHANNELS)
        data.rate_hz = rate_hz
        write_data_dir(data, tmp_path / "data")
        assert load_data_dir(tmp_path / "data") == data
    for text in ("", "pen\n", "pen real\npen binary\n", "pen complex\n"):
        (tmp_path / "data/channels").write_text(text)
        assert len(validate(tmp_path / "data")) == 1 and "channels" in validate(tmp_path / "data")[0]
    (tmp_path / "data/channels").write_text("pen binary\n")
    (tmp_path / "data/rate_hz").write_text("-3\n")
    assert "rate_hz:1: '-3'" in validate(tmp_path / "data")[0]


def test_frames_are_read_where_they_lie(tmp_path):
    dump = dump_of(tmp_path / "dump", jobs=2)
    for name, values in ITEMS.items():
        np.testing.assert_array_equal(dump.read(name), values)
    np.testing.assert_array_equal(dump.read("u1", 10, 20), ITEMS["u1"][10:20])
    batch = read_batch(dump, [Segment("u1", 3, 6), Segment("u2", 0, 1)])
    assert batch.data.shape == (2, 6, 3) and batch.frames == 7
    np.testing.assert_array_equal(batch.data[0].numpy(), ITEMS["u1"][3:9])
    assert not batch.data[1, 1:].any()


def test_moments_are_exact_and_do_not_depend_on_the_jobs(tmp_path):
    infos = [dump_of(tmp_path / str(jobs), jobs=jobs).info for jobs in (1, 2, 4)]
    assert infos[0] == infos[1] == infos[2]
    everything = np.concatenate([values.astype(np.float64) for values in ITEMS.values()])
    np.testing.assert_allclose(infos[0]["mean"], everything.mean(0), rtol=1e-14)
    np.testing.assert_allclose(infos[0]["std"], everything.std(0), rtol=1e-12)


@pytest.mark.parametrize("kind", [vectors, features])
def test_what_earlier_runs_left_behind_is_removed(tmp_path, kind):
    def make(jobs):
        for job in range(1, jobs + 1):
            share = share_of(sorted(ITEMS.items()), job, jobs)
            if kind is vectors:
                vectors.write(tmp_path, job, share, CHANNELS, {})
            else:
                features.write(tmp_path, job, share, {})
        if kind is vectors:
            vectors.merge(tmp_path, jobs, "data", CHANNELS, None)
        else:
            features.merge(tmp_path, jobs)
        return sorted(path.name for path in tmp_path.iterdir())

    once = make(2)
    make(4)
    (tmp_path / ".feats.1.ark.4711.tmp").write_bytes(b"of a run that was killed")
    assert make(2) == once


def test_the_marginal_is_spread_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "MARGINAL_FRAMES", 30)
    everything = np.concatenate(list(ITEMS.values()))
    np.testing.assert_array_equal(dump_of(tmp_path / "dump").marginal(), everything[::3])


def test_real_channels_are_normalised_and_binary_ones_are_not(tmp_path):
    observation = Observation.of_dump("normalised", dump_of(tmp_path / "dump"))
    data = torch.from_numpy(np.concatenate(list(ITEMS.values())))[None]
    target = observation.target(data)
    assert observation.channels == 3 and observation.continuous
    np.testing.assert_array_equal(target[..., 0].numpy(), data[..., 0].numpy())
    assert target[0, :, 1:].mean(0).abs().max() < 1e-3
    torch.testing.assert_close(target[0, :, 1:].std(0, correction=0), torch.ones(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(observation.decode(target), data, atol=2e-3, rtol=0)
    inputs = observation.inputs(data, torch.tensor([5]))
    assert not inputs[0, 5:].any() and torch.equal(inputs[0, :5], target[0, :5])
    again = Observation.from_dict(json.loads(json.dumps(observation.to_dict())))
    assert torch.equal(again.target(data), target)
    targets, counts = observation.marginal(data[0].numpy())
    assert torch.equal(targets, target[0]) and counts.sum() == len(target[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v[:, :2], "u1: 2 columns; expected 3"),
        (lambda v: np.where(np.arange(3) == 0, 0.5, v), "u1: frame 0: pen is 0.5; expected 0 or 1"),
        (lambda v: np.where((np.arange(50) == 4)[:, None] & (np.arange(3) == 2), np.nan, v), "frame 4: dy is nan"),
    ],
)
def test_values_that_are_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        dump_of(tmp_path / "dump", {**ITEMS, "u1": change(ITEMS["u1"]).astype(np.float32)})
    assert not (tmp_path / "dump/feats.1.ark").exists()


def test_a_constant_channel_and_a_coding_of_audio_are_refused(tmp_path):
    dump = dump_of(tmp_path / "dump", {u: v * np.array([1, 1, 0], np.float32) for u, v in ITEMS.items()})
    with pytest.raises(UserError, match="constant in the training set: dy"):
        Observation.of_dump("normalised", dump)
    never_lifted = {u: v * np.array([0, 1, 1], np.float32) for u, v in ITEMS.items()}
    assert Observation.of_dump("normalised", dump_of(tmp_path / "pen", never_lifted)).kinds[0] == "binary"
    with pytest.raises(ConfigError, match="'mulaw' is for audio"):
        Observation.of_dump("mulaw", dump)


def test_an_archive_of_something_else_is_noticed(tmp_path):
    dump_of(tmp_path / "dump")
    archive = tmp_path / "dump/feats.1.ark"
    intact = archive.read_bytes()
    cases = {
        intact[:-8]: "ends after",
        intact.replace(b"u3 \0BFM", b"u3 \0BDM"): "no float32 matrix",
        intact.replace(b"u3 ", b"u4 "): "no record of u3",
        intact.replace(b"\x04\x1e\0\0\0", b"\x04\x1d\0\0\0"): "holds 29 x 3 values",
    }
    assert len(cases) == 4 and intact not in cases
    for content, message in cases.items():
        archive.write_bytes(content)
        with pytest.raises(UserError, match=message):
            open_dump(tmp_path / "dump").read("u3")
    archive.write_bytes(intact)
    with pytest.raises(UserError, match="no record of u1"):
        matrices.read_vectors(f"{archive}:3", "u1")
    np.testing.assert_array_equal(matrices.read_vectors(f"{archive}:3", "u0"), ITEMS["u0"])
    with pytest.raises(UserError, match=r"expected path\.ark:offset"):
        matrices.read_vectors("nowhere")
    with pytest.raises(UserError, match="no float32 matrix"):
        matrices.read_vectors(f"{archive}:0")
    archive.write_bytes(b"u0 \0BFM \x04" + struct.pack("<ibi", 2**31 - 1, 4, 2**31 - 1))
    with pytest.raises(UserError, match="ends after 0 of 18446744056529682436 bytes"):
        matrices.read_vectors(f"{archive}:3")


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("info.json", b'"mean"', b'"meam"'),
        ("info.json", b'"real"', b'"real", 3'),
        ("feats.scp", b"u1 ", b"u1 \xee"),
        ("utt2num_frames", b"u1 ", b"u1 \xee"),
    ],
)
def test_a_damaged_index_is_named(tmp_path, name, old, new):
    dump_of(tmp_path)
    content = (tmp_path / name).read_bytes()
    assert old in content
    (tmp_path / name).write_bytes(content.replace(old, new))
    with pytest.raises(UserError, match=f"{name}: damaged .*; remove {tmp_path} and run stage 2"):
        open_dump(tmp_path)
