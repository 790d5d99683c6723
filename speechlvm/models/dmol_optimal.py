"""The best memoryless model with a DMoL output: a mixture of two discretised logistics (source A, table 1).

It is fitted by maximum likelihood to the exact histogram of the training set, in float64, to convergence.
"""

from __future__ import annotations

import math
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from speechlvm.coding import PCM_OFFSET, Coding
from speechlvm.distributions.dmol import DiscretizedLogisticMixture, fit_mixture
from speechlvm.utils.errors import UserError

COMPONENTS = 2
RESTARTS = 4
_ITERATIONS = 1000
_BLOCK_FRAMES = 1 << 20


class DMoLOptimal:
    """Independent frames from one mixture.

    Args:
        coding: coding, which defines the cells.
        mixture: (3K,) float64 parameters.
    """

    bound = "exact"

    def __init__(self, coding: Coding, mixture: Tensor) -> None:
        self.mixture = mixture
        self.parameters = len(mixture) - 1  # only differences of logits matter
        distribution = DiscretizedLogisticMixture(coding.edges, len(mixture) // 3).double()
        codes = torch.from_numpy(coding.codes.astype(np.int64)).unsqueeze(-1)
        self._nats_of_pcm = distribution.log_prob(mixture.expand(len(codes), -1), codes).numpy()

    @classmethod
    def fit(cls, histogram: np.ndarray, coding: Coding, components: int = COMPONENTS) -> DMoLOptimal:
        """Fit by maximum likelihood to counts (65536,) of PCM values -32768 ... 32767.

        Raises:
            UserError: the histogram is empty, or no initialisation converged.
        """
        if not histogram.sum() > 0:
            raise UserError(
                "DMoL-optimal: the training histogram is empty; expected counts of PCM values; run stage 2 again"
            )
        counts = torch.from_numpy(np.bincount(coding.codes, weights=histogram, minlength=coding.size))
        edges, codes = torch.from_numpy(coding.edges), torch.arange(coding.size)
        fits = [
            fit_mixture(edges, codes, counts, components, start, _ITERATIONS)
            for start in _starts(coding, counts, components)
        ]
        best = min((fit for fit in fits if fit.converged), key=lambda fit: fit.nats, default=None)
        if best is None:
            raise UserError(f"DMoL-optimal: no fit converged in {_ITERATIONS} iterations; check the training histogram")
        return cls(coding, best.parameters)

    def nats(self, pcm: np.ndarray) -> float:
        """Log-likelihood of int16 PCM (T,) in nats."""
        blocks = (pcm[start : start + _BLOCK_FRAMES] for start in range(0, len(pcm), _BLOCK_FRAMES))
        # the sum is exact, so it does not depend on blocks
        return math.fsum(chain.from_iterable(self._nats_of_pcm[b.astype(np.int64) + PCM_OFFSET] for b in blocks))


def _starts(coding: Coding, counts: Tensor, components: int) -> list[Tensor | None]:
    """Initial parameters of several kinds, quantiles first, as the likelihood has more than one maximum."""
    generator = torch.Generator().manual_seed(0)
    values, share = torch.from_numpy(coding.values).double(), counts / counts.sum()
    mean = (share * values).sum()
    std = (share * (values - mean).square()).sum().sqrt().clamp(min=1e-5)
    starts: list[Tensor | None] = [None]
    # one centre and scales that differ by factors of ten, for silence and speech under a linear coding
    scales = std.log() - 2.3 * torch.arange(components, dtype=torch.float64)
    starts.append(torch.cat([torch.zeros_like(scales), mean.expand(components), scales]))
    for _ in range(RESTARTS):
        means = mean + std * torch.randn(components, generator=generator, dtype=torch.float64)
        scales = std.log() - 3.0 * torch.rand(components, generator=generator, dtype=torch.float64)
        starts.append(torch.cat([torch.zeros_like(scales), means, scales]))
    return starts
