"""The output layer: parameters of a distribution, each with its own offset and scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class OutputLayer(nn.Linear):
    """parameters = origin + unit (W h + b), for the P parameters of one or several frames.

    Adam changes every weight by about the learning rate, whatever the gradient, so the unit decides how much a step
    changes a parameter. With the same unit for all, the first step would move a component as narrow as a point mass
    (such as digital silence) off its data. Origin and unit belong to the state of the model; before `start_at` they are
    0 and 1.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.register_buffer("origin", torch.zeros(out_features))
        self.register_buffer("unit", torch.ones(out_features))

    def forward(self, hidden: Tensor) -> Tensor:
        """Parameters (..., frames * P) of hidden vectors (..., H)."""
        return F.linear(hidden, *self.as_linear())

    def as_linear(self) -> tuple[Tensor, Tensor]:
        """Weight (frames * P, H) and bias (frames * P,) of the equivalent linear layer."""
        return self.weight * self.unit[:, None], torch.addcmul(self.origin, self.bias, self.unit)

    @torch.no_grad()
    def start_at(self, origin: Tensor, unit: Tensor, gain: float) -> None:
        """Start at the same parameters (P,) for each frame, with units (P,) and weights scaled by `gain`."""
        frames = self.out_features // origin.numel()
        self.origin.copy_(origin.to(self.origin).repeat(frames))
        self.unit.copy_(unit.to(self.unit).repeat(frames))
        self.weight.mul_(gain)
        self.bias.zero_()
