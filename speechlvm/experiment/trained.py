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
    """Origin of weights.

    Attributes:
        step: optimiser steps.
        epoch: epoch, from 0.
        seconds: time in training steps.
        seed: seed of weights, data order and noise.
        data_hash: hash of the training set.
    """

    step: int = Field(ge=0)
    epoch: int = Field(ge=0)
    seconds: float = Field(ge=0, allow_inf_nan=False)
    seed: int
    data_hash: str


@dataclass(frozen=True)
class Saved:
    """The contents of a trained model on disk.

    Attributes:
        name: name of the experiment.
        train_set: name of the training set.
        config: resolved configuration.
        weights: state of the model, not yet compared with the model.
        observation: observation, on the CPU.
        provenance: origin of the weights.
        source: file with the weights, for messages.
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
        model: model in evaluation mode, with its best weights.
        observation: observation with the statistics of the training set.
        provenance: origin of the weights.
        name: name of the experiment in results.
        train_set: name of the training set.
    """

    config: ExperimentConfig
    model: Model
    observation: Observation
    provenance: Provenance
    name: str
    train_set: str
