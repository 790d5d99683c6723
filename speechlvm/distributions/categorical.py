"""Categorical distribution over codes: the output of the original WaveNet with 256 mu-law codes."""

from __future__ import annotations

import torch
from torch import Tensor

from speechlvm.distributions.base import Distribution


class Categorical(Distribution):
    """One logit per code.

    Parameters (..., size): logits. Targets (..., 1): int64 codes. One sample takes one uniform number.

    Args:
        size: number of codes.
    """

    event_size = 1
    noise_size = 1
    continuous = False

    def __init__(self, size: int) -> None:
        super().__init__()
        self.parameter_size = size

    def log_prob(self, parameters: Tensor, target: Tensor) -> Tensor:
        """Log-probability (...) in nats."""
        return parameters.log_softmax(-1).gather(-1, target).squeeze(-1)

    def sample(self, parameters: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        """Codes (..., 1), by inversion of the cdf."""
        return ((parameters / temperature).softmax(-1).cumsum(-1)[..., :-1] < noise).sum(-1, keepdim=True)

    def mode(self, parameters: Tensor) -> Tensor:
        """The most probable code (..., 1)."""
        return parameters.argmax(-1, keepdim=True)

    def initial_bias(self, targets: Tensor, weights: Tensor) -> Tensor:
        """Logarithms of the relative frequencies, with half a count added to each."""
        counts = torch.full((self.parameter_size,), 0.5, dtype=torch.float64)
        counts.index_add_(0, targets.reshape(-1).cpu(), weights.cpu().double())
        return (counts / counts.sum()).log()
