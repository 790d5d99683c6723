"""Ancestral sampling as far as all models share it: what is drawn, what is given instead, and the loop over steps.

Each level's latents are drawn from its prior given what was drawn before them, and frames from the output distribution
given the latents and, in autoregressive models, the frames before. A temperature multiplies standard deviations. What
is reported about a draw is its probability under the model itself, whatever the temperature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from speechlvm.distributions.latent import DiagonalGaussian
from speechlvm.noise import Noise

if TYPE_CHECKING:
    from speechlvm.models.base import Model, State

SAMPLED_BLOCK_FRAMES = 4096
"""Frames between two calls of the noise stream and of `log_prob` in sampling; no number depends on it."""

Choose = Callable[[str, DiagonalGaussian], Tensor]
"""(level, prior of (B, D_l)) -> the level's latents (B, D_l) of the step, drawn or given."""


@dataclass(frozen=True)
class Samples:
    """What `Model.sample` drew.

    Attributes:
        target: (B, T, E) sampled targets.
        log_likelihood: (B, T) nats, log p of each sampled frame given everything it was conditioned on.
        state: to go on from.
        latents: level name -> (B, T_l, D_l), drawn or given.
        log_prior: level name -> (B, T_l) nats, log-density of each latent given what comes before it in the model.
    """

    target: Tensor
    log_likelihood: Tensor
    state: State
    latents: dict[str, Tensor] = field(default_factory=dict)
    log_prior: dict[str, Tensor] = field(default_factory=dict)


def join_samples(parts: list[Samples], frames: int) -> Samples:
    """Consecutive parts as one, cut to `frames` frames; the state is the last part's."""

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


class Draws:
    """What the steps of one sample are made of: noise at a temperature, and latents that are given.

    Args:
        model: whose levels and output distribution these are.
        frames: T.
        noise, state, latents, temperature: of `Model.sample`.

    Raises:
        ValueError: latents of unknown levels, of wrong shapes or given in part of a row; a temperature that is not
            positive.
    """

    def __init__(
        self,
        model: Model,
        frames: int,
        noise: Noise,
        state: State | None,
        latents: Mapping[str, Tensor],
        temperature: float | Tensor,
    ) -> None:
        self.frames = frames
        self._model, self._noise = model, noise
        self._position = model.frames_seen(state, len(noise))
        self._latents = {name: self._checked(name, values) for name, values in latents.items()}
        rows = torch.as_tensor(temperature, dtype=noise.dtype, device=noise.device).expand(len(noise))
        if not bool((rows > 0).all() and rows.isfinite().all()):
            raise ValueError(f"temperature: expected positive numbers, found {temperature}")
        self._temperature = rows.view(-1, 1, 1)

    def _checked(self, level: str, values: Tensor) -> Tensor:
        sizes = self._model.latent_sizes
        if level not in sizes:
            raise ValueError(f"latents: no level '{level}'; expected {', '.join(sizes) or 'none at all'}")
        shape = (len(self._noise), -(-self.frames // self._model.latent_hops[level]), sizes[level])
        if values.shape != shape:
            raise ValueError(f"latents of {level}: expected shape {shape}, found {tuple(values.shape)}")
        values = values.to(self._noise.device, self._noise.dtype)
        drawn = values.isnan().flatten(1)
        if (drawn.any(1) != drawn.all(1)).any():
            raise ValueError(f"latents of {level}: a row is given whole, or drawn whole where it is NaN")
        return values

    def normal(self, level: str, start: int, frames: int) -> Tensor:
        """Normal numbers (B, T_l, D_l), their deviation the temperature, for frames start .. start + frames - 1."""
        return self._model.draw_noise(self._noise, level, self._position + start, frames) * self._temperature

    def uniform(self, start: int, frames: int) -> Tensor:
        """Uniform numbers (B, frames, .) that frames start .. start + frames - 1 are drawn with."""
        return self._noise.uniform("x", self._position + start, frames, self._model.distribution.noise_size)

    def fill(self, level: str, step: int, drawn: Tensor) -> Tensor:
        """Latents of the steps from `step` on: `drawn` (B, n, D_l), but in rows that are given; itself if none is."""
        if level not in self._latents:
            return drawn
        given = self._latents[level][:, step : step + drawn.shape[1]]
        return torch.where(given.isnan(), drawn, given)

    def target(self, parameters: Tensor, uniform: Tensor) -> Tensor:
        """Frames (B, n, E) from their parameters (B, n, P) and uniform numbers."""
        return self._model.distribution.sample(parameters, uniform, self._temperature)


def sample_stepwise(
    model: Model,
    draws: Draws,
    inputs_of: Callable[[Tensor], Tensor],
    state: State,
    emit: Callable[[State, Choose], tuple[Tensor, State]],
    absorb: Callable[[State, Tensor], State],
) -> Samples:
    """Samples of a model whose latents, if there are any, all have the clock of the stacks.

    Args:
        model: which it is.
        draws, inputs_of, state: of `Model._sample`.
        emit: (memory, choose) -> parameters (B, s, P) of the next step, and what goes on from it; it lets `choose`
            take the latents of every level.
        absorb: (its memory, inputs (B, s * C) of the sampled stack) -> the memory after it.
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
            of_step, memory = emit(memory, choose)
            parameters.append(of_step)
            targets.append(draws.target(of_step, uniform))
            memory = absorb(memory, inputs_of(targets[-1]).to(uniform.dtype).flatten(1))
        target = torch.cat(targets[start:], 1)
        log_likelihoods.append(model.distribution.log_prob(torch.cat(parameters, 1), target))
    return Samples(
        torch.cat(targets, 1)[:, : draws.frames],
        torch.cat(log_likelihoods, 1)[:, : draws.frames],
        {**memory, "frames": state["frames"] + draws.frames},
        {level: torch.stack(of_steps, 1) for level, of_steps in latents.items()},
        {level: torch.stack(of_steps, 1) for level, of_steps in log_prior.items()},
    )
