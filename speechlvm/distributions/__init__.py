"""Output distributions, and the registry of their names in configurations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from pydantic import Field

from speechlvm.distributions.base import Distribution
from speechlvm.distributions.bivariate import BernoulliBivariate
from speechlvm.distributions.categorical import Categorical
from speechlvm.distributions.dmol import DiscretizedLogisticMixture
from speechlvm.distributions.gaussian import Gaussian, GaussianMixture
from speechlvm.utils.errors import ConfigError
from speechlvm.utils.settings import Settings, validated

MAX_CATEGORIES = 1024


class DMoLSettings(Settings):
    """Discretised mixture of logistics."""

    components: int = Field(default=10, gt=0, le=1000)


class GaussianSettings(Settings):
    """Diagonal Gaussian."""

    minimum_std: float = Field(default=0.01, ge=0, le=10, description="floor, relative to the std of the training set")


class GaussianMixtureSettings(GaussianSettings):
    """Mixture of diagonal Gaussians."""

    components: int = Field(default=20, gt=0, le=1000)


class CategoricalSettings(Settings):
    """One logit per code."""


class BernoulliBivariateSettings(GaussianMixtureSettings):
    """Bernoulli for the pen, mixture of bivariate Gaussians for its offset."""

    correlated: bool = Field(default=True, description="whether dx and dy are correlated within a component")


@dataclass(frozen=True)
class Registered:
    """A distribution that configurations can name.

    Attributes:
        settings: class of its `distribution_conf`.
        continuous: whether its targets are real numbers (coding `normalised`) or codes.
        build: (settings, coding edges or None, event size) -> distribution.
        kinds: kinds of channels (see `Observation.kinds`), if it describes only frames of these.
    """

    settings: type[Settings]
    continuous: bool
    build: Callable[[Any, np.ndarray | None, int], Distribution]
    kinds: tuple[str, ...] | None = None


DISTRIBUTIONS = {
    "dmol": Registered(DMoLSettings, False, lambda conf, edges, _: DiscretizedLogisticMixture(edges, conf.components)),
    "gaussian": Registered(GaussianSettings, True, lambda conf, _, size: Gaussian(size, conf.minimum_std)),
    "gmm": Registered(
        GaussianMixtureSettings, True, lambda conf, _, size: GaussianMixture(conf.components, size, conf.minimum_std)
    ),
    "bernoulli_bivariate": Registered(
        BernoulliBivariateSettings,
        True,
        lambda conf, _, __: BernoulliBivariate(conf.components, conf.minimum_std, conf.correlated),
        ("binary", "real", "real"),
    ),
    "categorical": Registered(CategoricalSettings, False, lambda _, edges, __: Categorical(len(edges) - 1)),
}


def check_distribution(name: str, settings: dict[str, Any], codes: int | None) -> Settings:
    """The settings of a distribution, with defaults filled in.

    Args:
        name: key of `DISTRIBUTIONS`.
        settings: its `distribution_conf`.
        codes: number of codes of the coding; None if the observation is continuous.

    Raises:
        ConfigError: unknown name or settings, or a distribution that does not fit the coding.
    """
    if name not in DISTRIBUTIONS:
        raise ConfigError(f"distribution: '{name}' is unknown; expected one of {', '.join(DISTRIBUTIONS)}")
    entry = DISTRIBUTIONS[name]
    conf = validated(entry.settings, settings, "distribution_conf")
    if entry.continuous and codes is not None:
        raise ConfigError(f"distribution: '{name}' is a density and cannot score codes; use it with coding normalised")
    if not entry.continuous and codes is None:
        raise ConfigError(
            f"distribution: '{name}' gives probabilities of codes, but the observation is continuous; "
            "use it with coding mulaw, mulaw-pcm, linear or mulaw8, or choose gaussian or gmm"
        )
    if name == "categorical" and codes > MAX_CATEGORIES:
        raise ConfigError(
            f"distribution: 'categorical' has one parameter per code, and this coding has {codes} codes; "
            "use it with coding mulaw8, or choose dmol"
        )
    return conf


class Frames(Protocol):
    """What a distribution must know about frames; an `Observation` has these attributes."""

    edges: np.ndarray | None
    kinds: tuple[str, ...]


def build_distribution(name: str, settings: dict[str, Any], frames: Frames) -> Distribution:
    """Build the distribution of a frame from its name and settings.

    Raises:
        ConfigError: see `check_distribution`; also if it describes frames with other channels.
    """
    edges = frames.edges
    conf = check_distribution(name, settings, None if edges is None else len(edges) - 1)
    entry = DISTRIBUTIONS[name]
    if entry.kinds not in (None, frames.kinds):
        found = f"{len(frames.kinds)} channels" if len(frames.kinds) > 6 else ", ".join(frames.kinds)
        raise ConfigError(f"distribution: '{name}' describes {', '.join(entry.kinds)} channels; the data have {found}")
    return entry.build(conf, edges, len(frames.kinds))
