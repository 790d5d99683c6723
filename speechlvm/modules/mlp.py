"""Multilayer perceptrons, and what models do with their first and last layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechlvm.modules.frames import full_precision


class MLP(nn.Module):
    """Linear layers, each followed by a leaky ReLU; then, if an output size is given, one more without.

    Args:
        input: size of the input.
        hidden: size of the hidden layers.
        layers: number of hidden layers, at least one.
        output: size of the output, which is computed in full precision; None: `hidden`, after the last activation.
        observed_input: the input is observed frames: the first layer runs in full precision even under autocast.
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


def split_input(layer: nn.Linear, size: int) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A layer of [a, b] in two: a (..., size) -> its part with the bias, and the weight of b."""
    of_a, of_b = layer.weight[:, :size], layer.weight[:, size:]
    return lambda a: F.linear(a, of_a, layer.bias), of_b


@torch.no_grad()
def start_carrying(mlp: MLP, rows: Tensor, first_input: int = 0) -> None:
    """Let an MLP start with some of its hidden units as linear functions of its input, next to random ones.

    A random deep MLP is a poor code: whoever reads latents through it learns to do without them before they carry
    anything. Here unit k and unit k + m of every layer are the positive and the negative part of one number, so their
    difference is that number, whatever the activation.

    Args:
        mlp: changed in place.
        rows: (R, K), weights of the first R units of the first layer; the other layers hand these units on.
        first_input: where the K inputs that they read begin.
    """
    for i, layer in enumerate(mlp.hidden):
        weights = torch.eye(len(rows)) if i else rows
        first = 0 if i else first_input
        layer.weight[: len(rows)].zero_()
        layer.weight[: len(rows), first : first + weights.shape[1]] = weights.to(layer.weight)
        layer.bias[: len(rows)].zero_()


def both_signs(rows: Tensor) -> Tensor:
    """(m, K) -> (2 m, K): what `start_carrying` hands on as positive and negative parts."""
    return torch.cat([rows, -rows])


@torch.no_grad()
def start_reading(output: nn.Linear, numbers: int, raw_std: float) -> None:
    """Let a posterior's output layer start with the first means equal to the numbers that are handed on.

    Args:
        output: to means and raw standard deviations.
        numbers: m.
        raw_std: of these latents.
    """
    size = output.out_features // 2
    output.weight[:numbers].zero_()
    output.weight[:numbers, : 2 * numbers] = both_signs(torch.eye(numbers)).t().to(output.weight)
    output.bias[size : size + numbers] = raw_std


def start_as_standard_normal(*networks: MLP) -> None:
    """Let networks of latents' parameters start close to N(0, 1), so that their divergence starts small."""
    with torch.no_grad():
        for network in networks:
            network.output.weight.mul_(0.1)
            network.output.bias.zero_()
