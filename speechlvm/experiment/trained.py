"""The contents of a trained model in a checkpoint or an export, validated when loaded."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field
from torch import Tensor

from speechlvm.experiment.config import ExperimentConfig
from speechlvm.models.base import Model
from speechlvm.observation import Observation
from speechlvm.utils.settings import Settings


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


@dataclass(frozen=True)
class Experiment:
    """A trained model and what it was trained on.

    Attributes:
        config: resolved configuration.
        model: in evaluation mode, with its best weights.
        observation: with the training set's statistics.
        provenance: of the weights.
        name: of the experiment, as results call it.
        train_set: name of the training set.
    """

    config: ExperimentConfig
    model: Model
    observation: Observation
    provenance: Provenance
    name: str
    train_set: str
