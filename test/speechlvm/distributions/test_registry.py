"""What configurations may ask for, and what they are told when it does not fit."""

import pytest

from speechlvm.coding import build_coding
from speechlvm.distributions import DISTRIBUTIONS, build_distribution
from speechlvm.errors import ConfigError


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
    edges = None if coding is None else build_coding(coding).edges
    distribution = build_distribution(name, settings, edges, 1)
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
        ("softmax", "mulaw", {}, "expected one of dmol, gaussian, gmm, categorical"),
        ("dmol", "mulaw", {"component": 3}, "did you mean 'components'"),
        ("dmol", "mulaw", {"components": 0}, "components"),
        ("dmol", "mulaw", {"components": "10"}, "components"),
        ("gaussian", None, {"minimum_std": -1.0}, "minimum_std"),
    ],
)
def test_refusals(name, coding, settings, message):
    edges = None if coding is None else build_coding(coding).edges
    with pytest.raises(ConfigError, match=message):
        build_distribution(name, settings, edges, 1)
