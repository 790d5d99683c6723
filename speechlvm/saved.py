"""What is kept of a trained model, in a checkpoint or in an export, and is checked before it is believed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from speechlvm import __version__
from speechlvm.config import ExperimentConfig, validated
from speechlvm.errors import ConfigError, UserError
from speechlvm.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from speechlvm.observation import Observation


class NewerFormat(UserError):
    """A file that a newer version of this project wrote: whole, but not for this one."""


class Provenance(Settings):
    """Where weights come from.

    Attributes:
        step: optimiser steps.
        epoch: from 0.
        seconds: in training steps.
        seed: of weights, data order and noise.
        data_hash: of the training set.
    """

    step: int = Field(ge=0)
    epoch: int = Field(ge=0)
    seconds: float = Field(ge=0, allow_inf_nan=False)
    seed: int
    data_hash: str


@dataclass(frozen=True)
class Saved:
    """A trained model as it lies on disk.

    Attributes:
        name: of the experiment.
        train_set: name of the training set.
        config: resolved configuration.
        weights: state of the model, not yet compared with it.
        observation: on the CPU.
        provenance: of the weights.
        source: file that the weights are in, for messages.
    """

    name: str
    train_set: str
    config: ExperimentConfig
    weights: dict[str, Tensor]
    observation: Observation
    provenance: Provenance
    source: str


def checked(settings: type[Settings], value: Any, source: str) -> Any:
    """Values read from a file as `settings`.

    Raises:
        UserError: not a mapping, an unknown or missing key, another type, or out of range.
    """
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UserError(f"{source}: expected a mapping of names, found {type(value).__name__}; the file is damaged")
    try:
        return validated(settings, value, source)
    except ConfigError as error:
        raise UserError(f"{error}; the file is damaged") from error


def check_format(value: dict[str, Any], newest: int, source: str) -> None:
    """Insist that a file is of a format that this version reads.

    Args:
        value: with "format", and "speechlvm", the version that wrote it.
        newest: format that this version writes.
        source: the file.

    Raises:
        NewerFormat: it has a newer one; the version to install is named.
        UserError: it has no format number.
    """
    number = value.get("format")
    if type(number) is not int or number < 1:
        raise UserError(f"{source}: not a file of this project (no format number); nothing was loaded")
    if number > newest:
        writer = value.get("speechlvm")
        known = isinstance(writer, str) and re.fullmatch(r"[0-9][0-9A-Za-z.+-]{0,30}", writer)
        needed = f"speechlvm >= {writer}" if known else "a newer speechlvm"
        raise NewerFormat(f"{source}: format {number}; speechlvm {__version__} reads up to {newest}; needs {needed}")
