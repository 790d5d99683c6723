"""Output distributions and the registry that configurations name them by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from speechlvm.config import validated
from speechlvm.distributions.base import Distribution
from speechlvm.distributions.categorical import Categorical
from speechlvm.distributions.dmol import DiscretizedLogisticMixture
from speechlvm.distributions.gaussian import Gaussian, GaussianMixture
from speechlvm.errors import ConfigError
from speechlvm.settings import Settings

MAX_CATEGORIES = 1024


class DMoLSettings(Settings):
    """Discretised mixture of logistics."""

    components: int = Field(default=10, gt=0, le=1000)


class GaussianSettings(Settings):
    """Diagonal Gaussian."""

    minimum_std: float = Field(default=0.01, ge=0, le=10, description="floor, in units of the training set's deviation")


class GaussianMixtureSettings(GaussianSettings):
    """Mixture of diagonal Gaussians."""

    components: int = Field(default=20, gt=0, le=1000)


class CategoricalSettings(Settings):
    """One logit per code."""


@dataclass(frozen=True)
class Entry:
    """A distribution that configurations can name.

    Attributes:
        settings: class of its `distribution_conf`.
        continuous: whether its targets are real numbers (coding `normalised`) or codes.
        build: (settings, coding edges or None, event size) -> distribution.
    """

    settings: type[Settings]
    continuous: bool
    build: Callable[[Any, np.ndarray | None, int], Distribution]


DISTRIBUTIONS = {
    "dmol": Entry(DMoLSettings, False, lambda conf, edges, _: DiscretizedLogisticMixture(edges, conf.components)),
    "gaussian": Entry(GaussianSettings, True, lambda conf, _, size: Gaussian(size, conf.minimum_std)),
    "gmm": Entry(
        GaussianMixtureSettings, True, lambda conf, _, size: GaussianMixture(conf.components, size, conf.minimum_std)
    ),
    "categorical": Entry(CategoricalSettings, False, lambda _, edges, __: Categorical(len(edges) - 1)),
}


def build_distribution(
    name: str, settings: dict[str, Any], coding_edges: np.ndarray | None, event_size: int = 1
) -> Distribution:
    """The distribution that a configuration names.

    Args:
        name: key of `DISTRIBUTIONS`.
        settings: its `distribution_conf`.
        coding_edges: (codes + 1,) cell edges of the coding; None if the observation is continuous.
        event_size: E, numbers in one target.

    Raises:
        ConfigError: unknown name or settings, or a distribution that does not fit the coding.
    """
    if name not in DISTRIBUTIONS:
        raise ConfigError(f"distribution: '{name}' is unknown; expected one of {', '.join(DISTRIBUTIONS)}")
    entry = DISTRIBUTIONS[name]
    conf = validated(entry.settings, settings, "distribution_conf")
    if entry.continuous and coding_edges is not None:
        raise ConfigError(f"distribution: '{name}' is a density and cannot score codes; use it with coding normalised")
    if not entry.continuous and coding_edges is None:
        raise ConfigError(
            f"distribution: '{name}' gives probabilities of codes, but the observation is continuous; "
            "use it with coding mulaw, mulaw-pcm, linear or mulaw8, or choose gaussian or gmm"
        )
    if name == "categorical" and len(coding_edges) - 1 > MAX_CATEGORIES:
        raise ConfigError(
            f"distribution: 'categorical' has one parameter per code, and this coding has {len(coding_edges) - 1} "
            "codes; use it with coding mulaw8, or choose dmol"
        )
    return entry.build(conf, coding_edges, event_size)
