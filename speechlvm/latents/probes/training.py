"""Training of a probe on frozen features, for a fixed number of steps; selects the lowest validation error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speechlvm.experiment.config import LearningRate
from speechlvm.latents.probes.clock import Features
from speechlvm.latents.probes.tasks import Task
from speechlvm.training.schedules import learning_rate
from speechlvm.utils.errors import UserError

VALIDATIONS = 10
WARMUP_SHARE = 0.1
GRADIENT_CLIP = 1.0


@dataclass(frozen=True)
class ProbeSettings:
    """The training budget, the same for all features.

    Attributes:
        steps: optimiser steps.
        batch_steps: steps of the clock per batch, over all its utterances (at least one).
        hidden: hidden units of recognisers.
        learning_rate: peak learning rate; linear warm-up over a tenth of the steps, then cosine to zero.
    """

    steps: int
    batch_steps: int
    hidden: int
    learning_rate: float


def train_probe(
    task: Task,
    features: Features,
    moments: tuple[np.ndarray, np.ndarray],
    utterances: Sequence[str],
    settings: ProbeSettings,
    seed: int,
    device: torch.device,
) -> dict[str, Any]:
    """Train on some utterances, select on the validation set, and score the test set.

    Weights, dropout and the order of utterances depend on `seed`, but not on the features. On a CPU, results are
    reproducible with the same number of threads; on a GPU, the gradient of CTC is summed in any order.

    Args:
        task: task with the labels.
        features: features of all sets.
        moments: mean and standard deviation for normalising features.
        utterances: utterances of the training set.
        settings: training budget.
        seed: random seed.
        device: device to train on.

    Returns:
        metrics on the test set, "valid" (metrics on the validation set) and "best_step".

    Raises:
        UserError: the loss is not finite.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        network = task.network(features.dimensions, settings.hidden).to(device)
        probe = _Probe(task, features, moments, network, settings, device)
        schedule = LearningRate(
            peak=settings.learning_rate, schedule="cosine", warmup_steps=int(WARMUP_SHARE * settings.steps)
        )
        optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        batches = _batches(task, utterances, settings.batch_steps, np.random.default_rng([seed]))
        every = -(-settings.steps // VALIDATIONS)
        least, best = float("inf"), None
        for step in range(settings.steps):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(schedule, step, step / settings.steps)
            loss = probe.loss(next(batches))
            if not torch.isfinite(loss):
                raise UserError(
                    f"probe '{task.name}' of {features.representation.name}, seed {seed}: loss {loss.item()} at step "
                    f"{step + 1}; try a lower --learning_rate"
                )
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_CLIP)
            optimiser.step()
            if (step + 1) % every == 0 or step + 1 == settings.steps:
                valid = probe.score("valid")
                if task.error(valid) <= least:  # ties: the last one, trained longest
                    least, weights = task.error(valid), network.state_dict()
                    best = (step + 1, valid, {name: value.clone() for name, value in weights.items()})
        best_step, valid, weights = best
        network.load_state_dict(weights)
        return {**probe.score("test"), "valid": valid, "best_step": best_step}


def _batches(task: Task, utterances: Sequence[str], steps: int, generator: np.random.Generator) -> Iterator[list[str]]:
    """Endless batches of at least `steps` steps; utterances are in random order, each once per epoch."""
    batch: list[str] = []
    total = 0
    while True:
        for place in generator.permutation(len(utterances)):
            batch.append(utterances[place])
            total += task.steps_of(utterances[place])
            if total >= steps:
                yield batch
                batch, total = [], 0


class _Probe:
    """A network with its features and labels."""

    def __init__(
        self,
        task: Task,
        features: Features,
        moments: tuple[np.ndarray, np.ndarray],
        network: nn.Module,
        settings: ProbeSettings,
        device: torch.device,
    ) -> None:
        self.task, self.features, self.network, self.settings, self.device = task, features, network, settings, device
        self.mean, self.std = (torch.from_numpy(array).to(device) for array in moments)

    def loss(self, utterances: list[str]) -> Tensor:
        self.network.train()
        outputs, lengths = self._outputs(utterances)
        return self.task.loss(outputs, lengths, [self.task.references["train"][u] for u in utterances])

    @torch.no_grad()
    def score(self, name: str) -> dict[str, float]:
        self.network.eval()
        references = self.task.references[name]
        utterances = sorted(references, key=lambda utterance: (self.task.frames[utterance], utterance))
        decoded, batch, total = [], [], 0
        for place, utterance in enumerate(utterances, start=1):
            batch.append(utterance)
            total += self.task.steps_of(utterance)
            if total >= self.settings.batch_steps or place == len(utterances):
                outputs, lengths = self._outputs(batch)
                decoded += self.task.decode(outputs, lengths.tolist())
                batch, total = [], 0
        return self.task.score([references[utterance] for utterance in utterances], decoded)

    def _outputs(self, utterances: list[str]) -> tuple[Tensor, Tensor]:
        arrays = [torch.from_numpy(self.features[utterance]) for utterance in utterances]
        lengths = torch.tensor([len(array) for array in arrays], device=self.device)
        padded = nn.utils.rnn.pad_sequence([(a.to(self.device) - self.mean) / self.std for a in arrays], True)
        return self.network(padded, lengths)
