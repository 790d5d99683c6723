"""Cells of recurrent models, for chains (`modules/chain.py`), whole sequences and single steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from speechlvm.modules.chain import GRU, LSTM, Dense, Source, gru_step, lstm_step
from speechlvm.modules.fast_chain import run_chain


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

    def operation(self, name: str, sources: tuple[Source, ...], term: Tensor) -> GRU:
        """As a part of a chain."""
        return GRU(name, sources, term, self.state.weight, self.state_bias)

    def run(self, term: Tensor, h: Tensor) -> Tensor:
        """States (T, B, H) along the input's parts of the gates (T, B, 3 H), from h_0 (B, H)."""
        return run_chain([self.operation("h", (), term)], {"h": h}, ["h"])["h"]

    def step(self, gates: Tensor, h: Tensor) -> Tensor:
        """One step, as `gru_step`."""
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

    def operation(self, name: str, cell: str, sources: tuple[Source, ...], term: Tensor) -> LSTM:
        """As a part of a chain."""
        return LSTM(name, cell, sources, term, self.state.weight)

    def run(self, term: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """States h and c (T, B, H) along the input's parts of the gates (T, B, 4 H), from h_0 and c_0 (B, H)."""
        values = run_chain([self.operation("h", "c", (), term)], {"h": h, "c": c}, ["h", "c"])
        return values["h"], values["c"]

    def step(self, gates: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One step, as `lstm_step`."""
        return lstm_step(gates, h, c, self.state.weight)


def dense_layers(name: str, source: Source, term: Tensor, others: Sequence[nn.Linear]) -> list[Dense]:
    """Hidden layers of an MLP whose first one sees `source` and `term`: values name + "1", name + "2", ..."""
    layers = [Dense(f"{name}1", (source,), term)]
    for i, layer in enumerate(others, 2):
        layers.append(Dense(f"{name}{i}", (Source(f"{name}{i - 1}", layer.weight),), layer.bias))
    return layers


def mean_half(output: Tensor) -> Tensor:
    """Weight (2 D, K) or bias (2 D,) of a layer that gives (mean, raw std), without what gives the latter.

    Added to a posterior's output layer, it makes the posterior's mean relative to the prior's (`residual`).
    """
    mean, raw = output.chunk(2)
    return torch.cat([mean, torch.zeros_like(raw)])
