"""Chains: the sequential part of recurrent models.

A chain is an ordered list of operations on named values, each (T, B, size), time-major:

    Dense   value_t = f(W source_t + ... + term_t)             f: leaky ReLU, or none
    Draw    z_t = mean_t + std(raw_t) noise_t                  (mean, raw): a Dense value of twice the size
    GRU     h_t = n + u (h_{t-1} - n), n = tanh(i_n + r h'_n)  i = W source_t + term_t, h' = W_hh h_{t-1} (+ bias)
    LSTM    c_t = f c_{t-1} + i g,  h_t = o tanh(c_t)
    Call    any function of values

A source is a value computed before in the same step, or any value of the step before. Terms are all that does not
depend on the chain: input halves of linear layers, biases. Models write chains with `recurrence.Chain`. `run_plain`
evaluates them one operation after another under autograd, which defines them; `fast_chain.py` evaluates those without
`Call` as one autograd node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from speechlvm.distributions.latent import DiagonalGaussian

SLOPE = 0.01
"""Of the leaky ReLU, as in `MLP`; it keeps the sign, so that its gradient follows from its output."""


@dataclass(frozen=True)
class Value:
    """A value of a chain.

    Attributes:
        name: unique in the chain.
        size: of its vectors.
        previous: whether that of the step before is meant.
    """

    name: str
    size: int
    previous: bool = False


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


@dataclass(frozen=True)
class Call:
    """Any function, for what has no operation of its own; slow.

    Attributes:
        names: of the values it returns.
        function: of the inputs at one step, (B, size) each.
        inputs: values, and tensors (T, B, size).
    """

    names: tuple[str, ...]
    function: Callable[..., tuple[Tensor, ...]]
    inputs: tuple[Value | Tensor, ...]


Operation = Dense | Draw | GRU | LSTM | Call


def count_steps(operations: Sequence[Operation]) -> int:
    """T, from what is given for all steps."""
    given = [x for op in operations for x in (op.inputs if isinstance(op, Call) else (term_of(op),))]
    return max(len(x) for x in given if isinstance(x, Tensor) and x.dim() == 3)


def run_plain(
    operations: Sequence[Operation], initial: Mapping[str, Tensor], outputs: Sequence[str]
) -> dict[str, Tensor]:
    """Evaluate a chain step by step; arguments and result as of `fast_chain.run_chain`."""
    track: list[dict[str, Tensor]] = []
    for t in range(count_steps(operations)):
        before, values = track[-1] if track else initial, {}

        def find(value: str, previous: bool) -> Tensor:
            return (before if previous else values)[value]  # noqa: B023

        def add(op: Dense | GRU | LSTM) -> Tensor:
            total = op.term[t] if op.term.dim() == 3 else op.term  # noqa: B023
            for source in op.sources:
                total = total + F.linear(find(source.value, source.previous), source.weight)
            return total

        for op in operations:
            if isinstance(op, Draw):
                values[op.name] = DiagonalGaussian.from_raw(values[op.raw]).sample(op.noise[t])
            elif isinstance(op, Dense):
                values[op.name] = F.leaky_relu(add(op), SLOPE) if op.active else add(op)
            elif isinstance(op, GRU):
                values[op.name] = gru_step(add(op), before[op.name], op.weight, op.bias)
            elif isinstance(op, LSTM):
                values[op.name], values[op.cell] = lstm_step(add(op), before[op.name], before[op.cell], op.weight)
            else:
                given = (find(x.name, x.previous) if isinstance(x, Value) else x[t] for x in op.inputs)
                values.update(zip(op.names, op.function(*given), strict=True))
        track.append(values)
    return {name: torch.stack([values[name] for values in track]) for name in outputs}


def term_of(op: Dense | Draw | GRU | LSTM) -> Tensor:
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
