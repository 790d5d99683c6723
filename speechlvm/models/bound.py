"""Results of models: series over steps, the terms of a bound, factors, latents and samples."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from speechlvm.distributions.latent import DiagonalGaussian

State = dict[str, Tensor]
"""Flat name -> tensor, batch first; "frames" (B,) int64, the number of frames already seen, is on the CPU: what depends
on it must not wait for a device."""


@dataclass(frozen=True)
class Series:
    """Values at regular steps.

    Attributes:
        values: (B, T') or (B, T', D).
        mask: (B, T') bool, True where the element covers at least one real frame.
        hop: frames per element.
    """

    values: Tensor
    mask: Tensor
    hop: int

    def slice(self, start: int, stop: int) -> Series:
        """Elements for frames start .. stop - 1; `start` is a multiple of the hop."""
        first, last = start // self.hop, -(-stop // self.hop)
        return Series(self.values[:, first:last], self.mask[:, first:last], self.hop)

    def repeat(self, samples: int) -> Series:
        """Repeat each row `samples` times, copies adjacent."""
        return Series(self.values.repeat_interleave(samples, 0), self.mask.repeat_interleave(samples, 0), self.hop)


def select_rows(state: State, rows: Tensor) -> State:
    """The state of some rows (B',) int64 of a batch; rows can be repeated."""
    frames = state["frames"][:1].expand(len(rows))  # the same for all
    return {name: frames if name == "frames" else values.index_select(0, rows) for name, values in state.items()}


Features = dict[str, Series]
"""Features that look ahead (smoothers, ladder encoders), computed over whole utterances by `Model.encode`."""


def slice_features(features: Features, start: int, stop: int) -> Features:
    """Features of the chunk of frames start .. stop - 1."""
    return {name: series.slice(start, stop) for name, series in features.items()}


def chunks(frames: int, chunk: int) -> list[tuple[int, int]]:
    """(start, stop) of consecutive chunks; the last one may be shorter."""
    return [(start, min(start + chunk, frames)) for start in range(0, frames, chunk)]


@dataclass(frozen=True)
class Bound:
    """Terms of a log-likelihood or of a lower bound on it, in nats. Nothing here is weighted or clipped.

    Attributes:
        log_likelihood: (B, T), hop 1: log p(x_t | ...) of every frame.
        kl: level name -> (B, T_l, D_l): analytic KL(q || p) per latent dimension. A partial last step counts in full.
        log_ratio: level name -> (B, T_l): sampled log q(z) - log p(z), for importance-weighted bounds.
        auxiliary: name -> (B, T_a): losses for training only.
    """

    log_likelihood: Series
    kl: dict[str, Series] = field(default_factory=dict)
    log_ratio: dict[str, Series] = field(default_factory=dict)
    auxiliary: dict[str, Series] = field(default_factory=dict)


@dataclass(frozen=True)
class Conditionals:
    """The factors of a latent variable model at given latents.

    Attributes:
        parameters: (B, T, P), parameters of the likelihood of each frame; None if not requested.
        prior: level name -> (B, T_l, D_l), p(z_t | what comes before it).
        posterior: level name -> (B, T_l, D_l), q(z_t | the same, and observations); empty if not requested.
    """

    parameters: Tensor | None
    prior: dict[str, DiagonalGaussian]
    posterior: dict[str, DiagonalGaussian]


@dataclass(frozen=True)
class Inference:
    """Result of inference in a chunk.

    Attributes:
        latents: level name -> (B, T_l, D_l), drawn from the posterior, or given.
        conditionals: the factors at these latents.
        state: state after the chunk.
        auxiliary: name -> (B, T_a): losses for training only.
    """

    latents: dict[str, Tensor]
    conditionals: Conditionals
    state: State
    auxiliary: dict[str, Series] = field(default_factory=dict)


@dataclass(frozen=True)
class Samples:
    """Result of `Model.sample`.

    Attributes:
        target: (B, T, E) sampled targets.
        log_likelihood: (B, T) nats, log p of each sampled frame given everything it was conditioned on.
        state: state to continue from.
        latents: level name -> (B, T_l, D_l), drawn or given.
        log_prior: level name -> (B, T_l) nats, log-density of each latent given what comes before it in the model.
    """

    target: Tensor
    log_likelihood: Tensor
    state: State
    latents: dict[str, Tensor] = field(default_factory=dict)
    log_prior: dict[str, Tensor] = field(default_factory=dict)
