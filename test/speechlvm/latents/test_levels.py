"""Levels whose information, active units and time scale are known."""

import json
import math

import numpy as np
import pytest
from imitations.representations import write_store
from scipy.signal import lfilter

from speechlvm.latents import levels
from speechlvm.latents.store import Representation, Store
from speechlvm.reporting import level_figures


def make_store(directory, items, representations, *, rate_hz=16_000, name="test", num_samples=100):
    return Store(write_store(directory, items, representations, rate_hz=rate_hz, set=name, num_samples=num_samples))


def latent(name, hop, dimensions, *statistics):
    return Representation(name, "latent", hop, hop / 2, dimensions, ("mean", *statistics))


def autoregressive(draws, steps, coefficients, stds):
    """(steps, D) stationary AR(1): correlation coefficient ** lag, variance std ** 2."""
    noise = draws.standard_normal((steps, len(coefficients)))
    columns = []
    for column, coefficient in zip(noise.T, coefficients, strict=True):
        column[1:] *= math.sqrt(1 - coefficient**2)
        columns.append(lfilter([1], [1, -coefficient], column))
    return (np.stack(columns, 1) * stds).astype("f4")


def test_time_scale_and_variance_of_an_autoregressive_process(tmp_path):
    draws = np.random.default_rng(0)
    items = [(f"u{i}", {"z1": {"mean": 7 + autoregressive(draws, 4000, [0.9, 0.9], [1.0, 0.05])}}) for i in range(20)]
    store = make_store(tmp_path, items, [latent("z1", 64, 2)])
    level = levels.analyse([store])["representations"]["z1"]
    np.testing.assert_allclose(level["unit_variances"], [1.0, 0.0025], rtol=0.05)
    assert level["active_units"] == 1 and not level["collapsed"]
    np.testing.assert_allclose(level["autocorrelation"][:21], 0.9 ** np.arange(21), atol=0.02)
    assert len(level["autocorrelation"]) == 251  # a second at 250 steps per second
    assert level["autocorrelation_steps"] == pytest.approx(-1 / math.log(0.9), rel=0.05)
    assert level["autocorrelation_ms"] == pytest.approx(4 * level["autocorrelation_steps"])
    assert level["kl_nats_per_second"] is None and level["unit_kl_nats_per_step"] is None


def test_dimensions_are_weighted_by_their_variance(tmp_path):
    draws = np.random.default_rng(1)
    items = [(f"u{i}", {"z1": {"mean": autoregressive(draws, 4000, [0.9, 0.0], [1.0, 2.0])}}) for i in range(20)]
    level = levels.analyse([make_store(tmp_path, items, [latent("z1", 64, 2)])])["representations"]["z1"]
    np.testing.assert_allclose(level["autocorrelation"][1:15], 0.9 ** np.arange(1, 15) / 5, atol=0.02)


def test_moments_are_those_of_all_utterances_at_once():
    draws = np.random.default_rng(2)
    utterances = [1000 + draws.standard_normal((steps, 20)).cumsum(0) for steps in (1, 5, 40, 300)]
    correlation = levels.Correlation(30)
    for values in utterances:
        correlation.add(values)
    everything = np.concatenate(utterances)
    np.testing.assert_allclose(correlation.variances(), everything.var(0), rtol=1e-10)
    centred = [values - everything.mean(0) for values in utterances]
    expected = []
    for lag in range(31):
        pairs = [(v[: len(v) - lag], v[lag:]) for v in centred if len(v) > lag]
        products = sum((a * b).sum() for a, b in pairs) / sum(len(a) for a, _ in pairs)
        expected.append(products / everything.var(0).sum())
    np.testing.assert_allclose(correlation.autocorrelation(), expected, rtol=1e-8)
    assert correlation.steps == 346


def test_lags_that_few_steps_have_are_left_out():
    correlation = levels.Correlation(30)
    for steps in (20, 20, 20, 28):  # at lag 18 there are 2 + 2 + 2 + 10 pairs of 88 steps, at lag 20 there are 8
        correlation.add(np.random.default_rng(steps).standard_normal((steps, 2)))
    assert len(correlation.autocorrelation()) == 20


@pytest.mark.parametrize(
    ("curve", "length"),
    [([1.0, 0.5, math.exp(-1) - 0.1, 0.9], 2 - 0.1 / (0.6 - math.exp(-1))), ([1.0, 0.0], 1 - math.exp(-1)),
     ([1.0, 0.9, 0.4], None), ([], None)],
)  # fmt: skip
def test_correlation_length_is_interpolated(curve, length):
    assert levels.correlation_length(np.array(curve)) == (length if length is None else pytest.approx(length))


def collapsing(seed):
    """z1 of 8 steps, whose units have KL 0.5, 0.009 and 0; z2 of 1 step that has collapsed."""
    draws = np.random.default_rng(seed)
    z1 = {
        "mean": draws.standard_normal((8, 3)) * [1.0, 0.2, 0.0] + [0.0, 0.0, 0.3],
        "std": np.tile([0.1, 0.1, 1.0], (8, 1)),
        "kl": np.tile([0.5, 0.009, 0.0], (8, 1)) * np.array([2, 0] * 4)[:, None],
    }
    z2 = {"mean": np.full((1, 2), 0.7), "std": np.ones((1, 2)), "kl": np.zeros((1, 2))}
    return {"z1": z1, "z2": z2}


LEVELS = [latent("z1", 64, 3, "std", "kl"), latent("z2", 512, 2, "std", "kl")]


def test_variance_of_few_samples_says_nothing(tmp_path):
    """A level whose means are noise of the paths alone: 1/K is more than the threshold."""
    draws = np.random.default_rng(0)
    items = [
        (f"u{i}", {"z1": {s: 0.09**0.5 * draws.standard_normal((500, 2)) * (s == "mean") for s in ("mean", "kl")}})
        for i in range(3)
    ]
    store = make_store(tmp_path, items, [latent("z1", 64, 2, "kl")], num_samples=10)
    level = levels.analyse([store])["representations"]["z1"]
    assert level["active_units"] is None and level["collapsed"] is True
    level_figures.draw(tmp_path, {"source": "m", "set": ["test"], "representations": {"z1": level}})
    assert (tmp_path / "levels.png").exists()


def test_information_by_hand_and_a_collapsed_level(tmp_path):
    store = make_store(tmp_path / "s", [(f"u{i}", collapsing(i)) for i in range(40)], LEVELS)
    result = levels.analyse([store])
    assert result["items"] == 40
    first, second = result["representations"]["z1"], result["representations"]["z2"]
    assert first["kl_nats_per_step"] == pytest.approx(0.509)
    assert first["kl_nats_per_second"] == pytest.approx(0.509 * 250)
    assert first["kl_bits_per_second"] == pytest.approx(0.509 * 250 / math.log(2))
    assert first["kl_bits_per_frame"] == pytest.approx(0.509 / 64 / math.log(2))
    assert first["unit_kl_nats_per_step"] == pytest.approx([0.5, 0.009, 0.0])
    assert (first["active_units_by_kl"], first["active_units"], first["dimensions"]) == (1, 2, 3)
    assert first["posterior_std"] == pytest.approx(math.sqrt((0.01 + 0.01 + 1) / 3))
    assert not first["collapsed"]
    assert second["kl_nats_per_second"] == 0 and second["unit_variances"] == [0.0, 0.0]
    assert (second["active_units_by_kl"], second["active_units"], second["collapsed"]) == (0, 0, True)
    assert second["autocorrelation"] == [] and second["autocorrelation_ms"] is None
    json.dumps(result, allow_nan=False)


def test_sets_are_pooled_and_information_is_that_of_sets_that_have_it(tmp_path):
    means = [latent("z1", 64, 3), latent("z2", 512, 2)]
    train = [(f"t{i}", {n: {"mean": 3 + v["mean"]} for n, v in collapsing(50 + i).items()}) for i in range(40)]
    stores = [
        make_store(tmp_path / "train", train, means, name="train"),
        make_store(tmp_path / "test", [(f"u{i}", collapsing(i)) for i in range(40)], LEVELS),
    ]
    result = levels.analyse(stores)
    level = result["representations"]["z1"]
    assert result["items"] == 80 and level["steps"] == 640
    assert level["kl_nats_per_step"] == pytest.approx(0.509) and level["posterior_std"] == pytest.approx(
        0.583, abs=1e-3
    )
    np.testing.assert_allclose(level["unit_variances"], [1 + 2.25, 0.04 + 2.25, 2.25], rtol=0.1)
    assert levels.analyse(stores[:1])["representations"]["z2"]["collapsed"]  # by the variance of its means


def test_hidden_states_and_spectra_have_no_units_to_be_active(tmp_path):
    hidden = Representation("h", "hidden", 64, 32.0, 4)
    store = make_store(tmp_path, [("a", {"h": {"mean": np.zeros((30, 4))}})], [hidden])
    level = levels.analyse([store])["representations"]["h"]
    assert level["active_units"] is None and level["active_units_by_kl"] is None and level["collapsed"] is False


def texts(figure):
    return [text.get_text() for axis in figure.axes for text in (*axis.texts, *axis.get_yticklabels())] + [
        entry.get_text() for axis in figure.axes if axis.get_legend() for entry in axis.get_legend().get_texts()
    ]


@pytest.fixture
def drawn(monkeypatch):
    """Figures in the order in which they are saved."""
    figures, save = [], level_figures.save
    monkeypatch.setattr(level_figures, "save", lambda figure, stem: save(figure, stem) or figures.append(figure))
    return figures


@pytest.mark.parametrize("rate_hz", [16_000, None])
def test_the_picture_names_the_collapsed_level(tmp_path, drawn, rate_hz):
    items = [(f"u{i}", collapsing(i)) for i in range(40)]
    result = levels.analyse([make_store(tmp_path / "s", items, LEVELS, rate_hz=rate_hz)])
    level = result["representations"]["z1"]
    assert (level["kl_nats_per_second"], level["autocorrelation_ms"]) == (None, None) or rate_hz
    assert level["autocorrelation_steps"] < 1
    spectrum = Representation("logmel", "spectrum", 64, 0.0, 2)
    noise = np.random.default_rng(0).standard_normal((40, 2))
    spectra = make_store(tmp_path / "m", [("u0", {"logmel": {"mean": noise}})], [spectrum], rate_hz=rate_hz)
    beside = levels.analyse([spectra])
    level_figures.draw(tmp_path, {**result, "source": "m", "set": ["test"]}, beside)
    assert (tmp_path / "levels.png").stat().st_size > 10_000 and (tmp_path / "levels.pdf").exists()
    found = texts(drawn[0])
    assert len(drawn[0].axes) == 4
    assert "z2 (collapsed)" in found and "z2 (collapsed): constant" in found
    nats = "127 nats/s = 184 bits/s" if rate_hz else "0.509 nats/step"
    assert f"{nats}\n1 of 3 units active (2 by variance)" in found
    assert any(text.startswith("logmel: ") and text.endswith(" ms" if rate_hz else " steps") for text in found)
    level_figures.draw(tmp_path / "spectra", {**beside, "source": "spectra", "set": ["test"]})
    assert len(drawn[1].axes) == 1
