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
from speechlvm.modules.loop import Loop, Tensors

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
        update: (memory, inputs (B, s * C) of the sampled stack) -> the memory after the step, named as before it.

    On a GPU, a step is a CUDA graph (`Loop` says what the functions must not do for that), except where the host takes
    part in it: experts, and `choose` of `Model.sample`.
    """
    memory = {name: value for name, value in state.items() if name != "frames"}
    steps, block = -(-draws.frames // model.stack), max(1, SAMPLED_BLOCK_FRAMES // model.stack)

    def step(memory: Tensors, given: Tensors) -> tuple[Tensors, Tensors]:
        outputs = {}

        def choose(level: str, prior: DiagonalGaussian) -> Tensor:
            z = prior.sample(given[f"normal {level}"])
            if (kept := given.get(f"given {level}")) is not None:
                z = torch.where(kept.isnan(), z, kept)
            outputs[level], outputs[f"prior of {level}"] = z, prior.log_prob(z).sum(-1)
            return z

        outputs["parameters"], memory = predict(memory, choose)
        outputs["target"] = draws.target(outputs["parameters"], given["uniform"])
        return outputs, update(memory, inputs_of(outputs["target"]).to(given["uniform"].dtype).flatten(1))

    loop = Loop(step, memory, steps, fixed=draws.choose is None and model.experts is None)
    parts = []
    for start in range(0, steps, block):
        first, count = start * model.stack, min(block, steps - start)
        given = {"uniform": draws.uniform(first, count * model.stack).unflatten(1, (count, model.stack))}
        for level in model.latent_sizes:
            given[f"normal {level}"] = draws.normal(level, first, count * model.stack)
            if (kept := draws.given(level, start, count)) is not None:
                given[f"given {level}"] = kept
        outputs = loop.run({name: values.transpose(0, 1) for name, values in given.items()})
        of_rows = {name: values.transpose(0, 1).contiguous() for name, values in outputs.items()}
        target = of_rows["target"].flatten(1, 2)
        log_likelihood = model.distribution.log_prob(of_rows["parameters"].flatten(1, 2), target)
        latents, log_prior = (
            {level: of_rows[f"{what}{level}"] for level in model.latent_sizes} for what in ("", "prior of ")
        )
        after = {**loop.memory, "frames": state["frames"] + draws.frames}
        parts.append(Samples(target, log_likelihood, after, latents, log_prior))
    return join_samples(parts, draws.frames)
