"""The result of evaluating a model: series over steps, and the terms of a bound."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

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
        auxiliary: name -> (B, T_a): costs for training only.
    """

    log_likelihood: Series
    kl: dict[str, Series] = field(default_factory=dict)
    log_ratio: dict[str, Series] = field(default_factory=dict)
    auxiliary: dict[str, Series] = field(default_factory=dict)
