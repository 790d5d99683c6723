"""What configurations may ask for, and what they are told when it does not fit."""

import pytest

from speechlvm.distributions import DISTRIBUTIONS, build_distribution
from speechlvm.observation import CONTINUOUS, AudioObservation, Statistics, VectorObservation
from speechlvm.utils.errors import ConfigError


def of_audio(coding):
    return AudioObservation(coding or CONTINUOUS, Statistics(0.0, 0.1))


@pytest.mark.parametrize(
    ("name", "coding", "settings", "size"),
    [
        ("dmol", "mulaw", {"components": 3}, 9),
        ("categorical", "mulaw8", {}, 256),
        ("gaussian", None, {"minimum_std": 0.0}, 2),
        ("gmm", None, {"components": 5}, 15),
    ],
)
def test_build(name, coding, settings, size):
    distribution = build_distribution(name, settings, of_audio(coding))
    assert distribution.parameter_size == size
    assert distribution.event_size == 1
    assert distribution.continuous == DISTRIBUTIONS[name].continuous == (coding is None)


@pytest.mark.parametrize(
    ("name", "coding", "settings", "message"),
    [
        ("dmol", None, {}, "use it with coding mulaw"),
        ("categorical", None, {}, "choose gaussian or gmm"),
        ("gaussian", "mulaw", {}, "use it with coding normalised"),
        ("gmm", "linear", {}, "use it with coding normalised"),
        ("categorical", "mulaw", {}, "use it with coding mulaw8"),
        ("softmax", "mulaw", {}, "expected one of dmol, gaussian, gmm, bernoulli_bivariate, categorical"),
        ("dmol", "mulaw", {"component": 3}, "did you mean 'components'"),
        ("dmol", "mulaw", {"components": 0}, "components"),
        ("dmol", "mulaw", {"components": "10"}, "components"),
        ("gaussian", None, {"minimum_std": -1.0}, "minimum_std"),
    ],
)
def test_refusals(name, coding, settings, message):
    with pytest.raises(ConfigError, match=message):
        build_distribution(name, settings, of_audio(coding))


def of_vectors(*kinds):
    return VectorObservation({f"c{i}": kind for i, kind in enumerate(kinds)}, [0.0] * len(kinds), [1.0] * len(kinds))


@pytest.mark.parametrize(
    ("observation", "found"),
    [(of_vectors("real", "real", "real"), "real, real, real"), (of_vectors(*["real"] * 60), "60 channels")],
)
def test_a_pen_needs_its_channels(observation, found):
    with pytest.raises(ConfigError, match=f"describes binary, real, real channels; the data have {found}"):
        build_distribution("bernoulli_bivariate", {}, observation)
    pen = build_distribution("bernoulli_bivariate", {"components": 3}, of_vectors("binary", "real", "real"))
    assert pen.event_size == 3 and pen.continuous


def test_a_density_has_the_size_of_the_vectors():
    distribution = build_distribution("gmm", {"components": 5}, of_vectors("real", "real", "real"))
    assert (distribution.event_size, distribution.parameter_size) == (3, 5 * 7)
