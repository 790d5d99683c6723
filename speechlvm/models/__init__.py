"""The systems, one file each, and the registry of their names in configurations; outside.py imports external models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from speechlvm.utils.errors import ConfigError

if TYPE_CHECKING:
    from speechlvm.distributions.base import Distribution
    from speechlvm.models.base import Model

MODELS = {
    "lstm": ("speechlvm.models.lstm", "LSTM"),
    "wavenet": ("speechlvm.models.wavenet", "WaveNet"),
    "zforcing": ("speechlvm.models.zforcing", "ZForcing"),
    "stochastic_wavenet": ("speechlvm.models.stochastic_wavenet", "StochasticWaveNet"),
    "stcn": ("speechlvm.models.stcn", "STCN"),
    "vrnn": ("speechlvm.models.vrnn", "VRNN"),
    "srnn": ("speechlvm.models.srnn", "SRNN"),
    "cwvae": ("speechlvm.models.cwvae", "CWVAE"),
}


def model_class(name: str) -> type[Model]:
    """The class of a model; its attribute `Config` is the class of its settings, and `reference` its paper.

    Args:
        name: key of `MODELS`, or `package.module:Class` (outside.py).

    Raises:
        ConfigError: unknown name, or an external class that is not allowed or not a model.
    """
    if ":" in name:
        from speechlvm.models.outside import outside_class

        return outside_class(name)
    if name not in MODELS:
        known = ", ".join(sorted(MODELS))
        raise ConfigError(f"model: '{name}' is unknown; expected one of {known}, or package.module:Class")
    module, attribute = MODELS[name]
    return getattr(import_module(module), attribute)


def build_model(name: str, settings: dict[str, Any], channels: int, distribution: Distribution) -> Model:
    """Build a model with random weights from validated settings."""
    cls = model_class(name)
    return cls(cls.Config(**settings), channels, distribution)
