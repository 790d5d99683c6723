"""Chains: the sequential part of recurrent models.

A chain is an ordered list of operations on named values, each (T, B, size), time-major:

    Dense   value_t = f(W source_t + ... + term_t)             f: leaky ReLU, or none
    Draw    z_t = mean_t + std(raw_t) noise_t                  (mean, raw): a Dense value of twice the size
    GRU     h_t = n + u (h_{t-1} - n), n = tanh(i_n + r h'_n)  i = W source_t + term_t, h' = W_hh h_{t-1} (+ bias)
    LSTM    c_t = f c_{t-1} + i g,  h_t = o tanh(c_t)

A source is a value computed before in the same step, or any value of the step before. Terms are all that does not
depend on the chain: input halves of linear layers, biases. So VRNN is [posterior layers, Draw z, phi_z layers, GRU h],
CW-VAE [Dense, GRU h, posterior layers, Draw z], SRNN [prior and posterior layers, Draw z] between two GRUs of their
own, and Z-forcing a VRNN with an LSTM. `fast_chain.py` evaluates chains, `recurrence.py` has the cells' weights; the
tests evaluate the same operations one by one under autograd.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

SLOPE = 0.01
"""Of the leaky ReLU, as in `MLP`; it keeps the sign, so that its gradient follows from its output."""


@dataclass(frozen=True)
class Source:
    """What a value contributes to an operation.

    Attributes:
        value: its name.
        weight: (N, K), applied to it.
        previous: whether it is that of the step before.
    """

    value: str
    weight: Tensor
    previous: bool = False


@dataclass(frozen=True)
class Dense:
    """A layer.

    Attributes:
        name: of the value.
        sources: added up.
        term: (T, B, N) or broadcastable to it; bias included.
        active: whether a leaky ReLU follows.
    """

    name: str
    sources: tuple[Source, ...]
    term: Tensor
    active: bool = True


@dataclass(frozen=True)
class Draw:
    """A latent drawn from a diagonal Gaussian.

    Attributes:
        name: of z.
        raw: name of the value (T, B, 2 D) that `DiagonalGaussian.from_raw` takes.
        noise: (T, B, D) standard normal.
    """

    name: str
    raw: str
    noise: Tensor


@dataclass(frozen=True)
class GRU:
    """A gated recurrent unit; needs an initial value.

    Attributes:
        name: of h, (T, B, H).
        sources: with weights (3 H, K), gates in the order n, r, u.
        term: (T, B, 3 H) or broadcastable: n, r, u, biases included.
        weight: W_hh (3 H, H), gates in the order r, u, n.
        bias: (H,) of the state's part of n.
    """

    name: str
    sources: tuple[Source, ...]
    term: Tensor
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class LSTM:
    """Long short-term memory; needs initial values of both.

    Attributes:
        name: of h, (T, B, H).
        cell: name of c, (T, B, H).
        sources: with weights (4 H, K), gates in the order o, i, f, g.
        term: (T, B, 4 H) or broadcastable: o, i, f, g, biases included.
        weight: W_hh (4 H, H).
    """

    name: str
    cell: str
    sources: tuple[Source, ...]
    term: Tensor
    weight: Tensor


Operation = Dense | Draw | GRU | LSTM


def term_of(op: Operation) -> Tensor:
    """Its term, or noise."""
    return op.noise if isinstance(op, Draw) else op.term


def gru_step(gates: Tensor, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """h_t (B, H) from the input's part of the gates (B, 3 H) and h_{t-1}."""
    n, r, u = gates.chunk(3, -1)
    state_r, state_u, state_n = F.linear(h, weight).chunk(3, -1)
    n = torch.tanh(n + torch.sigmoid(r + state_r) * (state_n + bias))
    return torch.lerp(n, h, torch.sigmoid(u + state_u))


def lstm_step(gates: Tensor, h: Tensor, c: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """h_t and c_t (B, H) from the input's part of the gates (B, 4 H), h_{t-1} and c_{t-1}."""
    o, i, f, g = (gates + F.linear(h, weight)).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c
