"""Recurrences for models: cells, and chains of layers, draws and cells.

    chain = Chain(d=d_0)                                               # states before the first step
    raw = chain.mlp("q", self.posterior, phi_x, chain.before("d"))     # q(z_t | phi_x(x_t), d_{t-1})
    z = chain.draw("z", raw, noise)
    d = chain.gru("d", self.cell, (self.cell.input, phi_x, z))         # d_t = GRU([phi_x(x_t), z_t], d_{t-1})
    z, d = chain.run(z, d)                                             # (T, B, size) each

Tensors (T, B, size) and values of the chain can be mixed: everything that depends only on tensors, down to their part
of a linear layer, is computed for all steps at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechlvm.modules.chain import (
    GRU,
    LSTM,
    SLOPE,
    Call,
    Dense,
    Draw,
    Operation,
    Source,
    Value,
    gru_step,
    lstm_step,
    run_plain,
)
from speechlvm.modules.fast_chain import run_chain
from speechlvm.modules.frames import full_precision
from speechlvm.modules.mlp import MLP


class GRUCell(nn.Module):
    """Weights of a `GRU`.

    Args:
        input_size: K.
        state_size: H.
    """

    def __init__(self, input_size: int, state_size: int) -> None:
        super().__init__()
        self.input = nn.Linear(input_size, 3 * state_size)  # n, r, u
        self.state = nn.Linear(state_size, 3 * state_size, bias=False)  # r, u, n
        self.state_bias = nn.Parameter(torch.empty(state_size))
        bound = 1 / math.sqrt(state_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def run(self, gates: Tensor, h: Tensor) -> Tensor:
        """States (T, B, H) from the input parts of the gates (T, B, 3 H) and h_0 (B, H)."""
        chain = Chain(h=h)
        return chain.run(chain.gru("h", self, gates))[0]

    def step(self, gates: Tensor, h: Tensor) -> Tensor:
        """One step; see `gru_step`."""
        return gru_step(gates, h, self.state.weight, self.state_bias)


class LSTMCell(nn.Module):
    """Weights of an `LSTM`.

    Args:
        input_size: K.
        state_size: H.
    """

    def __init__(self, input_size: int, state_size: int) -> None:
        super().__init__()
        self.input = nn.Linear(input_size, 4 * state_size)  # o, i, f, g
        self.state = nn.Linear(state_size, 4 * state_size, bias=False)
        bound = 1 / math.sqrt(state_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def step(self, gates: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One step; see `lstm_step`."""
        return lstm_step(gates, h, c, self.state.weight)


@dataclass(frozen=True)
class Affine:
    """A linear layer that is not a module.

    Attributes:
        weight: (N, K).
        bias: (N,), or None.
    """

    weight: Tensor
    bias: Tensor | None = None


def mean_half(output: nn.Linear) -> Affine:
    """The output layer of a Gaussian with the rows of the raw std set to zero.

    Added to the output layer of a posterior, it makes the posterior mean relative to the prior mean (`residual`).
    """
    mean, raw = output.weight.chunk(2)
    bias = output.bias.chunk(2)
    return Affine(torch.cat([mean, torch.zeros_like(raw)]), torch.cat([bias[0], torch.zeros_like(bias[1])]))


Term = Tensor | tuple[nn.Linear | Affine, *tuple[Value | Tensor, ...]]
"""Term of a sum: a tensor, or a linear layer followed by its inputs, which are concatenated."""


class Chain:
    """The sequential part of a model, built operation by operation and then run; see the module docstring.

    Args:
        initial: (B, size) initial value of each value that the next step reads.
    """

    def __init__(self, **initial: Tensor) -> None:
        self._initial = initial
        self._operations: list[Operation] = []

    def before(self, name: str) -> Value:
        """A value of the previous step."""
        return Value(name, self._initial[name].shape[-1], previous=True)

    def linear(self, name: str, *terms: Term, active: bool = False) -> Value | Tensor:
        """The sum of terms, followed by a leaky ReLU if `active`."""
        sources, total = self._sum(terms)
        if not sources:
            return F.leaky_relu(total, SLOPE) if active else total
        self._operations.append(Dense(name, sources, total, active))
        return Value(name, total.shape[-1])

    def hidden(self, name: str, network: MLP, *inputs: Value | Tensor) -> Value:
        """The last hidden layer of an MLP of the concatenated inputs."""
        for i, layer in enumerate(network.hidden, 1):
            inputs = (self.linear(f"{name}{i}", (layer, *inputs), active=True),)
        return inputs[0]

    def mlp(self, name: str, network: MLP, *inputs: Value | Tensor) -> Value | Tensor:
        """An MLP of the concatenated inputs."""
        if not any(isinstance(x, Value) for x in inputs):
            return network(torch.cat(inputs, -1))
        hidden = self.hidden(name, network, *inputs)
        return hidden if network.output is None else self.linear(name, (network.output, hidden))

    def draw(self, name: str, raw: Value, noise: Tensor) -> Value:
        """Latents drawn from `DiagonalGaussian.from_raw(raw)` with standard normal noise (T, B, D)."""
        self._operations.append(Draw(name, raw.name, noise))
        return Value(name, noise.shape[-1])

    def gru(self, name: str, cell: GRUCell, *terms: Term) -> Value:
        """The state of a GRU; the sum of terms is the input part of its gates."""
        self._operations.append(GRU(name, *self._sum(terms), cell.state.weight, cell.state_bias))
        return Value(name, cell.state.in_features)

    def lstm(self, name: str, memory: str, cell: LSTMCell, *terms: Term) -> tuple[Value, Value]:
        """The state and the cell of an LSTM, likewise."""
        self._operations.append(LSTM(name, memory, *self._sum(terms), cell.state.weight))
        return Value(name, cell.state.in_features), Value(memory, cell.state.in_features)

    def call(
        self, sizes: dict[str, int], function: Callable[..., tuple[Tensor, ...]], *inputs: Value | Tensor
    ) -> tuple[Value, ...]:
        """Values of an arbitrary function of one step (`Call`), by name and size; the chain becomes a plain loop."""
        self._operations.append(Call(tuple(sizes), function, inputs))
        return tuple(Value(name, size) for name, size in sizes.items())

    def run(self, *wanted: Value | Tensor) -> tuple[Tensor, ...]:
        """Evaluate the chain; returns values as (T, B, size), and tensors unchanged."""
        names = [x.name for x in wanted if isinstance(x, Value)]
        if any(isinstance(op, Call) for op in self._operations):
            with full_precision(next(iter(self._initial.values()))):
                values = run_plain(self._operations, self._initial, names)
        else:
            values = run_chain(self._operations, self._initial, names)
        return tuple(values[x.name] if isinstance(x, Value) else x for x in wanted)

    def _sum(self, terms: tuple[Term, ...]) -> tuple[tuple[Source, ...], Tensor]:
        """The sources that depend on the chain, and the sum of all other terms."""
        sources, known = [], []
        for term in terms:
            if isinstance(term, Tensor):
                known.append(term)
                continue
            layer, *inputs = term
            tensors = [x for x in inputs if isinstance(x, Tensor)]
            if len(tensors) == len(inputs):
                known.append(F.linear(torch.cat(tensors, -1), layer.weight, layer.bias))
                continue
            bias, first = layer.bias, 0
            for x in inputs:
                size = x.shape[-1] if isinstance(x, Tensor) else x.size
                weight = layer.weight if len(inputs) == 1 else layer.weight[:, first : first + size]
                first += size
                if isinstance(x, Value):
                    sources.append(Source(x.name, weight, x.previous))
                else:
                    known.append(F.linear(x, weight, bias))
                    bias = None
            if bias is not None:
                known.append(bias)
        return tuple(sources), sum(known[1:], known[0])
