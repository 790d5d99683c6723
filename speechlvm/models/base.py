"""What every model is: a pure scorer and sampler. It computes no loss, knows no file and logs nothing.

inputs (B, T, C) ----> forward ----> Bound: log_likelihood (B, T), KL per level (B, T_l, D_l)
target (B, T, E) --/      |
state, features, noise -/  \\--> state, from which scoring of the next chunk or generation continues
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from speechlvm.distributions.base import Distribution
from speechlvm.noise import Noise

State = dict[str, Tensor]
"""Flat name -> tensor, batch first; "frames" (B,) int64 is the number of frames already seen."""


@dataclass(frozen=True)
class Series:
    """Values on a regular clock.

    Attributes:
        values: (B, T') or (B, T', D).
        mask: (B, T') bool, True where the element covers at least one real frame.
        hop: frames per element.
    """

    values: Tensor
    mask: Tensor
    hop: int

    def slice(self, start: int, stop: int) -> Series:
        """Elements of frames start .. stop - 1; `start` is a multiple of the hop."""
        first, last = start // self.hop, -(-stop // self.hop)
        return Series(self.values[:, first:last], self.mask[:, first:last], self.hop)

    def repeat(self, samples: int) -> Series:
        """`samples` adjacent copies of each row."""
        return Series(self.values.repeat_interleave(samples, 0), self.mask.repeat_interleave(samples, 0), self.hop)


Features = dict[str, Series]
"""What looks ahead (smoothers, ladder encoders), computed over whole utterances by `Model.encode`."""


def slice_features(features: Features, start: int, stop: int) -> Features:
    """Features of the chunk of frames start .. stop - 1."""
    return {name: series.slice(start, stop) for name, series in features.items()}


@dataclass(frozen=True)
class Bound:
    """Terms of a log-likelihood or of a lower bound on it, in nats. Nothing here is weighted or clipped.

    Attributes:
        log_likelihood: (B, T), hop 1: log p(x_t | ...) of every frame.
        kl: level name -> (B, T_l, D_l): analytic KL(q || p) per latent dimension. A partial last step pays in full.
        log_ratio: level name -> (B, T_l): sampled log q(z) - log p(z), for importance-weighted bounds.
        auxiliary: name -> (B, T_a): costs for training only.
    """

    log_likelihood: Series
    kl: dict[str, Series] = field(default_factory=dict)
    log_ratio: dict[str, Series] = field(default_factory=dict)
    auxiliary: dict[str, Series] = field(default_factory=dict)


@dataclass(frozen=True)
class Samples:
    """What `Model.sample` drew.

    Attributes:
        target: (B, T, E) sampled targets.
        log_likelihood: (B, T) nats, log p of each sampled frame given everything it was conditioned on.
        latents: level name -> (B, T_l, D_l).
        state: to go on from.
    """

    target: Tensor
    log_likelihood: Tensor
    latents: dict[str, Tensor]
    state: State


def select_state(state: State, rows: Tensor) -> State:
    """State of some rows."""
    return {name: value[rows] for name, value in state.items()}


class Model(nn.Module, ABC):
    """A system: weights, `forward` over a sequence, `sample`, and what both start from.

    Attributes:
        distribution: the output distribution.
        channels: C, input channels.
        stack: s, frames per step.
        hop: frames between which chunks may be cut (s; s_L for CW-VAE).
        bound: "exact" or "elbo".
        head: the output layer, to the parameters of one or several frames.
    """

    distribution: Distribution
    head: nn.Linear
    channels: int
    stack: int
    hop: int
    bound: str

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """State before the first frame."""

    def encode(self, inputs: Tensor, lengths: Tensor) -> Features:
        """What looks ahead, over whole utterances: inputs (B, T, C), zero beyond lengths (B,). Default: none."""
        return {}

    @abstractmethod
    def forward(
        self,
        inputs: Tensor,
        target: Tensor,
        lengths: Tensor,
        *,
        features: Features | None = None,
        state: State | None = None,
        noise: Noise | None = None,
    ) -> tuple[Bound, State]:
        """Score a chunk.

        Args:
            inputs: (B, T, C) the chunk's own frames (the model shifts them itself), zero beyond `lengths`.
            target: (B, T, E) the same frames as targets; anything beyond `lengths`.
            lengths: (B,) int64 frames of the chunk that are real (may be <= 0 for rows that have ended).
            features: of this chunk (`slice_features`); required by models whose `encode` returns any.
            state: after the previous chunk; None at the beginning. T is a multiple of `hop` but in the last chunk.
            noise: required by models with latents; positions are absolute, so chunking changes no number.
        """

    @abstractmethod
    def sample(
        self,
        frames: int,
        noise: Noise,
        inputs_of: Callable[[Tensor], Tensor],
        state: State | None = None,
    ) -> Samples:
        """Ancestral samples of `frames` frames, one row per key of `noise`.

        Args:
            frames: T.
            noise: latents and frames are drawn from it.
            inputs_of: target (..., E) -> network input (..., C), from the Observation.
            state: after a prefix scored by `forward`, to continue it; None samples from the start.
        """

    def score(self, inputs: Tensor, target: Tensor, lengths: Tensor, noise: Noise | None = None) -> Bound:
        """`encode` and `forward` over whole utterances or training segments."""
        features = self.encode(inputs, lengths)
        return self(inputs, target, lengths, features=features, noise=noise)[0]

    def initialise_output(self, bias: Tensor, gain: float = 0.1) -> None:
        """Start at the data's marginal: small output weights, and `bias` (P,) for each frame of the head.

        Without it a network with 2^16 codes starts worse than uniform, with gradients of 1e5.
        """
        with torch.no_grad():
            self.head.weight.mul_(gain)
            self.head.bias.copy_(bias.to(self.head.bias).repeat(self.head.out_features // bias.numel()))

    def frames_seen(self, state: State | None, batch: int) -> int:
        """Absolute position of the next frame (all rows of a batch are at the same one)."""
        return 0 if state is None else int(state["frames"][0])
