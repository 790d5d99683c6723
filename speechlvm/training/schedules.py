"""Schedules of the learning rate and of the objective (weights, free nats), and when they have ended."""

from __future__ import annotations

import math

from speechlvm.experiment.config import AuxiliaryWeight, KLWeight, LearningRate, TrainingSettings


def learning_rate(settings: LearningRate, step: int, progress: float) -> float:
    """Learning rate of the optimiser step `step` (from 0).

    Args:
        settings: settings of the schedule.
        step: optimiser steps taken.
        progress: fraction of the limit of the run, 0 to 1; used by `constant-decay`, and by the cosine unless
            `decay_steps` is set.
    """
    rate = settings.peak
    if settings.schedule == "cosine":
        share = progress if settings.decay_steps is None else min(1.0, step / settings.decay_steps)
        rate = settings.final + (settings.peak - settings.final) * (1 + math.cos(math.pi * share)) / 2
    elif decays(settings, progress):
        rate = settings.final + (settings.peak - settings.final) * (1.0 - progress) / settings.decay_share
    elif settings.schedule == "exponential":
        rate = max(settings.final, settings.peak * settings.decay_rate ** (step / settings.decay_steps))
    if step < settings.warmup_steps:
        rate *= (step + 1) / settings.warmup_steps
    return rate


def decays(settings: LearningRate, progress: float) -> bool:
    """Whether the final decay of `constant-decay` has begun at a fraction of the run's limit."""
    return settings.schedule == "constant-decay" and progress >= 1.0 - settings.decay_share


def kl_weight(settings: KLWeight, step: int) -> float:
    """Weight of the KL terms at an optimiser step: constant 1, or from `initial` to 1 over `steps`."""
    if settings.schedule == "constant":
        return 1.0
    share = min(1.0, step / settings.steps)
    if settings.schedule == "cosine":
        share = 1.0 - math.cos(share * math.pi / 2)
    elif settings.schedule == "raised-cosine":
        share = (1.0 - math.cos(share * math.pi)) / 2
    return settings.initial + (1.0 - settings.initial) * share


def free_nats(settings: TrainingSettings, step: int) -> float:
    """Free nats at an optimiser step: constant for half of `free_nats_steps`, then to 0 along a cosine."""
    if settings.free_nats_steps is None:
        return settings.free_nats
    half = settings.free_nats_steps / 2
    return settings.free_nats * (1 + math.cos(math.pi * min(1.0, max(0.0, step / half - 1.0)))) / 2


def auxiliary_weights(settings: dict[str, AuxiliaryWeight], step: int) -> dict[str, float]:
    """Weight of each auxiliary loss at an optimiser step: linear from `initial` to `final` over `steps`."""
    return {
        name: weight.initial + (weight.final - weight.initial) * min(1.0, step / weight.steps)
        for name, weight in settings.items()
    }


def settled(settings: TrainingSettings, step: int) -> bool:
    """Whether the objective no longer changes from this step on, and the learning rate is warmed up."""
    ends = [settings.learning_rate.warmup_steps, settings.free_nats_steps or 0]
    ends += [weight.steps for weight in settings.auxiliary.values()]
    if settings.kl_weight.schedule != "constant":
        ends.append(settings.kl_weight.steps)
    return step >= max(ends)
