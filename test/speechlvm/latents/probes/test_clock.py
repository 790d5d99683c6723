import numpy as np
import pytest

from speechlvm.latents.probes.clock import Features, clock_hop, clock_steps, on_clock, stacked
from speechlvm.latents.store import Representation, Store
from speechlvm.utils.errors import UserError


def representation(hop, centre=None, dimensions=2):
    return Representation("z1", "latent", hop, hop / 2 if centre is None else centre, dimensions)


def test_the_clock_has_sixteen_milliseconds():
    assert [clock_hop(rate) for rate in (8000, 16000, 22050)] == [128, 256, 353]
    assert [clock_steps(frames, 256) for frames in (1, 256, 257)] == [1, 1, 2]


@pytest.mark.parametrize(
    ("hop", "width"), [(1, 4), (16, 4), (64, 4), (80, 4), (128, 2), (200, 2), (256, 1), (512, 1), (4096, 1)]
)
def test_each_span_is_what_the_representation_has_within_it(hop, width):
    """Against `Representation.steps_within`, span by span."""
    frames, clock = 5000, 256
    for centre in (0.0, hop / 2, hop - 0.5):
        known = representation(hop, centre)
        values = np.random.default_rng(hop).standard_normal((-(-frames // hop), 2)).astype(np.float32)
        assert stacked(known, clock) == width
        result = on_clock(values, known, frames, clock)
        assert result.shape == (20, width * 2) and result.dtype == np.float32
        for step in range(20):
            for k in range(width):
                start, end = step * clock + k * clock // width, step * clock + (k + 1) * clock // width
                expected = values[known.steps_within(start, end, len(values))].mean(axis=0)
                np.testing.assert_allclose(result[step, 2 * k : 2 * k + 2], expected, atol=1e-6)


def test_steps_of_64_frames_stand_side_by_side_and_none_is_lost():
    values = np.arange(80, dtype=np.float32).reshape(40, 2)
    np.testing.assert_array_equal(on_clock(values, representation(64), 40 * 64, 256), values.reshape(10, 8))


@pytest.mark.parametrize("hop", [64, 80, 96, 200, 256])
def test_no_step_is_averaged_with_another_from_a_quarter_of_the_clock_on(hop):
    values = np.arange(50, dtype=np.float32)[:, None] + 1
    spans = on_clock(values, representation(hop, dimensions=1), 50 * hop, 256)
    np.testing.assert_array_equal(np.unique(spans), values[:, 0])


def test_steps_of_512_frames_are_repeated():
    values = np.arange(10, dtype=np.float32).reshape(5, 2)
    np.testing.assert_array_equal(on_clock(values, representation(512), 5 * 512, 256), values.repeat(2, axis=0))


def test_moments_are_those_of_all_steps(tmp_path, known):
    items = known.draw()["train"]
    store = Store(known.write_set(tmp_path, "train", items)[0])
    frames = {u: len(item[0]) * 128 for u, item in items.items()}
    features = Features("z1", [store], frames, 256)
    everything = np.concatenate([features[u] for u in items])
    mean, std = features.moments(items)
    np.testing.assert_allclose(mean, everything.mean(0), atol=1e-5)
    np.testing.assert_allclose(std, everything.std(0), atol=1e-5)


def test_a_constant_dimension_becomes_zero(tmp_path, known):
    items = {"train-0": (np.full((20, 1), 7.0), [], "a")}
    features = Features("z1", [Store(known.write_set(tmp_path, "train", items)[0])], {"train-0": 2560}, 256)
    mean, std = features.moments(items)
    assert np.abs((features["train-0"] - mean) / std).max() < 1e-3


def test_features_beyond_the_cache_are_read_again(tmp_path, known, monkeypatch):
    items = known.draw()["train"]
    store = Store(known.write_set(tmp_path, "train", items)[0])
    frames = {u: len(item[0]) * 128 for u, item in items.items()}
    kept = Features("z1", [store], frames, 256)
    monkeypatch.setattr("speechlvm.latents.probes.clock.CACHE_BYTES", kept["train-00"].nbytes)
    read = Features("z1", [store], frames, 256)
    for u in [*items, *items]:
        np.testing.assert_array_equal(read[u], kept[u])
    assert list(read._cache) == ["train-00"] and read["train-00"] is read["train-00"]


def test_representations_of_other_audio_are_refused(tmp_path, known):
    items = {"train-0": (np.zeros((40, 1)), [], "a")}
    store = Store(known.write_set(tmp_path, "train", items)[0])
    with pytest.raises(UserError, match="train-0: 40 steps of 128 frames of z1, but 9000 frames in its data directory"):
        Features("z1", [store], {"train-0": 9000}, 256)["train-0"]
