"""Progress of a training run: steps done, limits, and the history of validations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from speechlvm.experiment.config import ExperimentConfig
from speechlvm.scoring.accounting import CorpusScore
from speechlvm.training.schedules import settled


@dataclass
class Progress:
    """Position of a run; saved with every checkpoint.

    Attributes:
        step: optimiser steps taken.
        epoch: epoch, from 0.
        group: optimiser steps taken within the epoch.
        seconds: time spent in training steps, without validation and checkpoints.
        best: highest validation log-likelihood, nats per frame.
        best_step: step at which it was reached.
        stale: number of validations since then, not counting those before the schedules of the objective have ended or
            before the final decay of the learning rate has begun.
        history: one entry per validation.
        decay_step: step at which the final decay of the learning rate began; -1 if it has not begun.
    """

    step: int = 0
    epoch: int = 0
    group: int = 0
    seconds: float = 0.0
    best: float = -math.inf
    best_step: int = -1
    stale: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    decay_step: int = -1

    def advance(self, seconds: float, ends_epoch: bool) -> None:
        """Count an optimiser step and its time."""
        self.seconds += seconds
        self.step += 1
        self.epoch, self.group = (self.epoch + 1, 0) if ends_epoch else (self.epoch, self.group + 1)

    def fraction(self, config: ExperimentConfig, steps_per_epoch: int) -> float:
        """Fraction of the limit that is closest to being reached, 0 to 1."""
        limits, fractions = config.limits, [0.0]
        if limits.steps is not None:
            fractions.append(self.step / limits.steps)
        if limits.epochs is not None:
            # fractions of epochs count, so that a cosine over epochs is smooth
            fractions.append((self.epoch + self.group / steps_per_epoch) / limits.epochs)
        if limits.seconds is not None:
            fractions.append(self.seconds / limits.seconds)
        return min(1.0, max(fractions))

    def is_finished(self, config: ExperimentConfig) -> bool:
        """Whether a limit is reached, or `validation.patience` is exhausted."""
        limits = config.limits
        return (
            (limits.steps is not None and self.step >= limits.steps)
            or (limits.epochs is not None and self.epoch >= limits.epochs)
            or (limits.seconds is not None and self.seconds >= limits.seconds)
            or self.is_stale(config)
        )

    def is_stale(self, config: ExperimentConfig) -> bool:
        """Whether `validation.patience` is exhausted."""
        patience = config.validation.patience
        return patience is not None and self.stale >= patience

    def needs_validation(self, config: ExperimentConfig) -> bool:
        """Whether this step must be validated and has not been: the first, the last, and every `every_steps`."""
        if self.history and self.history[-1]["step"] == self.step:
            return False
        return self.step % config.validation.every_steps == 0 or self.is_finished(config) or not self.history

    def add_validation(self, config: ExperimentConfig, score: CorpusScore, density: bool) -> bool:
        """Add a validation of this step; returns whether it is the best so far.

        Args:
            config: configuration of the experiment.
            score: score of the validation set.
            density: whether likelihoods are densities, for which bits are not reported.
        """
        self.history.append(
            {
                "step": self.step,
                "epoch": self.epoch,
                "seconds": round(self.seconds, 3),
                "nats_per_frame": score.nats_per_frame,
                "bits_per_frame": None if density else score.bits_per_frame,
                "terms_nats_per_frame": score.terms_nats_per_frame,
            }
        )
        is_best = score.nats_per_frame > self.best
        if is_best:
            self.best, self.best_step = score.nats_per_frame, self.step
        undecayed = config.training.learning_rate.schedule == "constant-decay" and self.decay_step < 0
        changing = undecayed or not settled(config.training, self.step)
        self.stale = 0 if is_best or changing else self.stale + 1
        return is_best

    def forget_best(self) -> None:
        """Forget the best checkpoint, which was lost: this step is validated again and becomes the best."""
        self.best, self.best_step = -math.inf, -1
        self.history = [entry for entry in self.history if entry["step"] < self.step]
