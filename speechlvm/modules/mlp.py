"""Multilayer perceptrons."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from speechlvm.modules.frames import full_precision


class MLP(nn.Module):
    """Linear layers with leaky ReLU and, if an output size is given, a linear output layer.

    Args:
        input: size of the input.
        hidden: size of the hidden layers.
        layers: number of hidden layers, at least one.
        output: size of the output, which is computed in full precision; None: no output layer.
        observed_input: whether the input is observed frames: the first layer then runs in full precision.
    """

    def __init__(
        self, input: int, hidden: int, layers: int, output: int | None = None, observed_input: bool = False
    ) -> None:
        super().__init__()
        sizes = [input] + [hidden] * layers
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in zip(sizes, sizes[1:], strict=False))
        self.output = nn.Linear(hidden, output) if output is not None else None
        self.observed_input = observed_input

    def forward(self, x: Tensor) -> Tensor:
        """(..., input) -> (..., output or hidden)."""
        first, *others = self.hidden
        if self.observed_input:
            with full_precision(x):
                x = first(x.to(first.weight.dtype))
        else:
            x = first(x)
        x = F.leaky_relu(x, inplace=True)
        for layer in others:
            x = F.leaky_relu(layer(x), inplace=True)
        if self.output is None:
            return x
        with full_precision(x):
            return self.output(x.to(self.output.weight.dtype))
