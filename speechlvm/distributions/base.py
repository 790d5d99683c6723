"""The interface of output distributions: log-probabilities in nats, without masks, reductions over time or weights."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Distribution(nn.Module, ABC):
    """Distribution of one frame given its parameters.

    Attributes:
        event_size: E, size of one target (1 for audio).
        parameter_size: P, number of network outputs per frame.
        noise_size: number of uniform numbers that one sample consumes.
        continuous: True for densities (results in nats only), False for probability masses (bits are meaningful).
    """

    event_size: int
    parameter_size: int
    noise_size: int
    continuous: bool

    @abstractmethod
    def log_prob(self, parameters: Tensor, target: Tensor) -> Tensor:
        """Log-probability or log-density in nats: parameters (..., P), target (..., E) -> (...)."""

    @abstractmethod
    def sample(self, parameters: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        """One draw: parameters (..., P), uniform noise in (0, 1) of shape (..., noise_size) -> target (..., E).

        A temperature T, a positive number or tensor that broadcasts against (..., 1), sharpens (T < 1) or flattens the
        distribution: standard deviations and scales are multiplied by T, and logits (also those of components) divided
        by T, so that probabilities become p^(1 / T), normalised. As T goes to 0, samples approach the mode of the
        likeliest component.
        """

    @abstractmethod
    def mode(self, parameters: Tensor) -> Tensor:
        """A representative target (..., E), defined by each distribution."""

    @abstractmethod
    def initial_bias(self, targets: Tensor, weights: Tensor) -> Tensor:
        """Parameters (P,) that fit the marginal of the training data.

        Args:
            targets: (N, E) distinct targets.
            weights: (N,) how often each occurs.
        """

    def units(self, parameters: Tensor) -> Tensor:
        """Units (P,) in which networks express deviations from these parameters (P,): `unit_of_mean`, 1 for others."""
        return torch.ones_like(parameters)

    def draw(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """`sample` with noise from a generator."""
        shape = (*parameters.shape[:-1], self.noise_size)
        noise = torch.rand(shape, generator=generator, dtype=parameters.dtype, device=parameters.device)
        tiny = torch.finfo(parameters.dtype).eps / 2
        return self.sample(parameters, noise.clamp_(tiny, 1 - tiny))


def unit_of_mean(scales: Tensor) -> Tensor:
    """Units of means, elementwise, from the scales (or standard deviations) of their components.

    They are 1, like those of the data, except for narrow components, which a single step would move off their data. A
    unit of ten scales and initial weights of a tenth move them by a few tenths of a scale: 0.02 nats.
    """
    return (10 * scales).clamp(max=1.0)
