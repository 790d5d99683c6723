"""Scores of utterances and corpora: exact sums of log p(x|z) - KL or of importance-weighted bounds, never weighted.

Does not import torch, so that tables and references start quickly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

LN2 = math.log(2.0)


@dataclass(frozen=True)
class UtteranceScore:
    """Totals of one utterance.

    Attributes:
        utterance: utterance id.
        frames: length without padding.
        nats: log-likelihood or lower bound in nats.
        terms: its terms in nats ("log_likelihood", "kl_z1", ...).
    """

    utterance: str
    frames: int
    nats: float
    terms: dict[str, float] = field(default_factory=dict)

    @property
    def bits_per_frame(self) -> float:
        """Bits per frame; meaningless for densities."""
        return -self.nats / self.frames / LN2


@dataclass(frozen=True)
class CorpusScore:
    """Totals of a set, from float64 sums over utterances in sorted order.

    Attributes:
        nats_per_frame: total log-likelihood divided by the number of frames.
        bits_per_frame: total negative log-likelihood in bits divided by the number of frames (source A, eq. (11)).
        nats_per_utterance: mean log-likelihood of utterances.
        mean_utterance_bits_per_frame: mean over utterances of their bits per frame (source A, caption of Table 3).
        interval: 95 % bootstrap interval of bits_per_frame over utterances.
    """

    utterances: int
    frames: int
    nats_per_frame: float
    bits_per_frame: float
    nats_per_utterance: float
    mean_utterance_bits_per_frame: float
    interval: tuple[float, float]
    terms_nats_per_frame: dict[str, float]


def corpus_score(scores: Iterable[UtteranceScore], resamples: int = 1000, seed: int = 0) -> CorpusScore:
    """Sum utterances; the result does not depend on their order.

    Raises:
        ValueError: no utterances, or an utterance (named) with a log-likelihood that is not finite.
    """
    scores = sorted(scores, key=lambda score: score.utterance)
    if not scores:
        raise ValueError("no utterances to add up")
    for score in scores:
        if not math.isfinite(score.nats):
            raise ValueError(f"{score.utterance}: log-likelihood is {score.nats}")
    frames = sum(score.frames for score in scores)
    nats = math.fsum(score.nats for score in scores)
    names = sorted({name for score in scores for name in score.terms})
    return CorpusScore(
        utterances=len(scores),
        frames=frames,
        nats_per_frame=nats / frames,
        bits_per_frame=-nats / frames / LN2,
        nats_per_utterance=nats / len(scores),
        mean_utterance_bits_per_frame=math.fsum(-s.nats / s.frames / LN2 for s in scores) / len(scores),
        interval=bootstrap_interval(
            np.array([-s.nats / LN2 for s in scores]), np.array([s.frames for s in scores]), resamples, seed
        ),
        terms_nats_per_frame={name: math.fsum(s.terms.get(name, 0.0) for s in scores) / frames for name in names},
    )


def bootstrap_interval(bits: np.ndarray, frames: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    """95 % percentile interval of sum(bits) / sum(frames) when utterances are drawn with replacement."""
    return percentile_interval(resampled_bits_per_frame(bits, frames, resamples, seed))


def resampled_bits_per_frame(bits: np.ndarray, frames: np.ndarray, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """sum(bits) / sum(frames) of `resamples` draws of utterances with replacement.

    The draws depend on `seed` and on the number of utterances alone, so the differences between two systems, draw by
    draw, are paired.

    Args:
        bits: of each utterance (U,), or of several systems (S, U).
        frames: of each utterance (U,).

    Returns:
        (resamples,) or (S, resamples).
    """
    generator = np.random.default_rng(seed)
    ratios = np.empty((*bits.shape[:-1], resamples))
    for i in range(resamples):  # all counts at once would take 8 kB for each utterance
        counts = generator.multinomial(len(frames), np.full(len(frames), 1.0 / len(frames)))
        ratios[..., i] = (bits @ counts) / (frames @ counts)
    return ratios


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of values (N,)."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
