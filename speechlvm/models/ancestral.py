"""Ancestral sampling for all models: drawn and given latents, and the loop over steps.

Each level's latents are drawn from its prior given what was drawn before them, and frames from the output distribution
given the latents and, in autoregressive models, the previous frames. A temperature multiplies standard deviations. The
probabilities returned are those under the model, whatever the temperature.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from speechlvm.distributions.latent import DiagonalGaussian
from speechlvm.models.base import Draws
from speechlvm.models.bound import Samples

if TYPE_CHECKING:
    from speechlvm.models.base import Model
    from speechlvm.models.bound import State

SAMPLED_BLOCK_FRAMES = 4096
"""Frames between calls of the noise stream and of `log_prob` in sampling; does not change results."""

Choose = Callable[[str, DiagonalGaussian], Tensor]
"""(level, prior (B, D_l)) -> latents (B, D_l) of the level at this step, drawn or given."""


def join_samples(parts: list[Samples], frames: int) -> Samples:
    """Concatenate consecutive parts and cut them to `frames` frames; the state is that of the last part."""

    def joined(name: str) -> dict[str, Tensor]:
        return {
            level: torch.cat([getattr(part, name)[level] for part in parts], 1) for level in getattr(parts[0], name)
        }

    return Samples(
        torch.cat([part.target for part in parts], 1)[:, :frames],
        torch.cat([part.log_likelihood for part in parts], 1)[:, :frames],
        parts[-1].state,
        joined("latents"),
        joined("log_prior"),
    )


def sample_stepwise(
    model: Model,
    draws: Draws,
    inputs_of: Callable[[Tensor], Tensor],
    state: State,
    predict: Callable[[State, Choose], tuple[Tensor, State]],
    update: Callable[[State, Tensor], State],
) -> Samples:
    """Sample step by step from a model whose latents, if any, all have one step per stack.

    Args:
        model: the model.
        draws, inputs_of, state: arguments of `Model._sample`.
        predict: (memory, choose) -> parameters (B, s, P) of the next step, and the memory for `update`; it calls
            `choose` for the latents of every level.
        update: (memory, inputs (B, s * C) of the sampled stack) -> the memory after the step.
    """
    memory = {name: value for name, value in state.items() if name != "frames"}
    steps, block = -(-draws.frames // model.stack), max(1, SAMPLED_BLOCK_FRAMES // model.stack)
    latents: dict[str, list[Tensor]] = {level: [] for level in model.latent_sizes}
    log_prior: dict[str, list[Tensor]] = {level: [] for level in model.latent_sizes}

    def choose(level: str, prior: DiagonalGaussian) -> Tensor:
        step = len(latents[level])
        drawn = prior.sample(normal[level][:, step % block])
        z = draws.fill(level, step, drawn.unsqueeze(1)).squeeze(1)
        latents[level].append(z)
        log_prior[level].append(prior.log_prob(z).sum(-1))
        return z

    targets, log_likelihoods = [], []
    for start in range(0, steps, block):
        first, frames = start * model.stack, min(block, steps - start) * model.stack
        normal = {level: draws.normal(level, first, frames) for level in model.latent_sizes}
        parameters = []
        for uniform in draws.uniform(first, frames).split(model.stack, 1):
            of_step, memory = predict(memory, choose)
            parameters.append(of_step)
            targets.append(draws.target(of_step, uniform))
            memory = update(memory, inputs_of(targets[-1]).to(uniform.dtype).flatten(1))
        target = torch.cat(targets[start:], 1)
        log_likelihoods.append(model.distribution.log_prob(torch.cat(parameters, 1), target))
    return Samples(
        torch.cat(targets, 1)[:, : draws.frames],
        torch.cat(log_likelihoods, 1)[:, : draws.frames],
        {**memory, "frames": state["frames"] + draws.frames},
        {level: torch.stack(of_steps, 1) for level, of_steps in latents.items()},
        {level: torch.stack(of_steps, 1) for level, of_steps in log_prior.items()},
    )
