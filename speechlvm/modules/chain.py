"""Chains: the sequential part of recurrent models.

A chain is an ordered list of operations on named values, each (T, B, size), time-major:

    Dense   value_t = f(W source_t + ... + term_t)             f: leaky ReLU, or none
    Draw    z_t = mean_t + std(raw_t) noise_t                  (mean, raw): a Dense value of twice the size
    GRU     h_t = n + u (h_{t-1} - n), n = tanh(i_n + r h'_n)  i = W source_t + term_t, h' = W_hh h_{t-1} (+ bias)
    LSTM    c_t = f c_{t-1} + i g,  h_t = o tanh(c_t)
    Call    any function of values

A source is a value computed earlier in the same step, or any value of the previous step. Terms do not depend on the
chain: input parts of linear layers, biases. Models write chains with `recurrence.Chain`. `run_plain`, the reference,
evaluates them operation by operation; `fast_chain.py` evaluates chains without `Call` as one autograd node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from speechlvm.distributions.latent import DiagonalGaussian
from speechlvm.modules.loop import Loop, Tensors

SLOPE = 0.01
"""Negative slope of the leaky ReLU, as in `MLP`; the sign is kept, so the gradient follows from the output."""


@dataclass(frozen=True)
class Value:
    """A value of a chain.

    Attributes:
        name: name, unique in the chain.
        size: size of its vectors.
        previous: whether it is the value of the previous step.
    """

    name: str
    size: int
    previous: bool = False


@dataclass(frozen=True)
class Source:
    """A value multiplied by a weight, as input of an operation.

    Attributes:
        value: name of the value.
        weight: (N, K).
        previous: whether it is the value of the previous step.
    """

    value: str
    weight: Tensor
    previous: bool = False


@dataclass(frozen=True)
class Dense:
    """A linear layer.

    Attributes:
        name: name of the value.
        sources: inputs, whose products are summed.
        term: (T, B, N) or broadcastable to it; includes the bias.
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
        name: name of z.
        raw: name of the value (T, B, 2 D) with the raw parameters (`DiagonalGaussian.from_raw`).
        noise: (T, B, D) standard normal.
    """

    name: str
    raw: str
    noise: Tensor


@dataclass(frozen=True)
class GRU:
    """A gated recurrent unit; needs an initial value.

    Attributes:
        name: name of h, (T, B, H).
        sources: inputs with weights (3 H, K), gates in the order n, r, u.
        term: (T, B, 3 H) or broadcastable to it: n, r, u, with biases.
        weight: W_hh (3 H, H), gates in the order r, u, n.
        bias: (H,) bias of W_hh h in gate n.
    """

    name: str
    sources: tuple[Source, ...]
    term: Tensor
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class LSTM:
    """Long short-term memory; needs initial values of h and c.

    Attributes:
        name: name of h, (T, B, H).
        cell: name of c, (T, B, H).
        sources: inputs with weights (4 H, K), gates in the order o, i, f, g.
        term: (T, B, 4 H) or broadcastable to it: o, i, f, g, with biases.
        weight: W_hh (4 H, H).
    """

    name: str
    cell: str
    sources: tuple[Source, ...]
    term: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Call:
    """An arbitrary function, for what no other operation can do; slow.

    Attributes:
        names: names of the values that it returns.
        function: function of the inputs of one step, (B, size) each.
        inputs: values, and tensors (T, B, size).
    """

    names: tuple[str, ...]
    function: Callable[..., tuple[Tensor, ...]]
    inputs: tuple[Value | Tensor, ...]


Operation = Dense | Draw | GRU | LSTM | Call


def count_steps(operations: Sequence[Operation]) -> int:
    """T, from the terms, noise and inputs for all steps."""
    return max(len(x) for op in operations for x in _inputs(op) if isinstance(x, Tensor) and x.dim() == 3)


def run_plain(
    operations: Sequence[Operation], initial: Mapping[str, Tensor], outputs: Sequence[str]
) -> dict[str, Tensor]:
    """Evaluate a chain step by step (`Loop`); arguments and result as in `fast_chain.run_chain`."""

    def step(before: Tensors, given: Tensors) -> tuple[Tensors, Tensors]:
        values: Tensors = {}

        def find(value: str, previous: bool) -> Tensor:
            return (before if previous else values)[value]

        for number, op in enumerate(operations):
            inputs = [
                find(x.name, x.previous) if isinstance(x, Value) else given.get(f"{number} {place}", x)
                for place, x in enumerate(_inputs(op))
            ]
            if isinstance(op, Call):
                values.update(zip(op.names, op.function(*inputs), strict=True))
                continue
            (total,) = inputs
            if isinstance(op, Draw):
                values[op.name] = DiagonalGaussian.from_raw(values[op.raw]).sample(total)
                continue
            for source in op.sources:
                total = total + F.linear(find(source.value, source.previous), source.weight)
            if isinstance(op, Dense):
                values[op.name] = F.leaky_relu(total, SLOPE) if op.active else total
            elif isinstance(op, GRU):
                values[op.name] = gru_step(total, before[op.name], op.weight, op.bias)
            else:
                values[op.name], values[op.cell] = lstm_step(total, before[op.name], before[op.cell], op.weight)
        return {name: values[name] for name in outputs}, {name: values[name] for name in initial}

    given = {
        f"{number} {place}": x
        for number, op in enumerate(operations)
        for place, x in enumerate(_inputs(op))
        if isinstance(x, Tensor) and x.dim() == 3
    }
    return Loop(step, dict(initial), count_steps(operations)).run(given)


def _inputs(op: Operation) -> tuple[Value | Tensor, ...]:
    return op.inputs if isinstance(op, Call) else (term_of(op),)


def term_of(op: Dense | Draw | GRU | LSTM) -> Tensor:
    """The term of an operation, or its noise."""
    return op.noise if isinstance(op, Draw) else op.term


def gru_step(gates: Tensor, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """h_t (B, H) from the input part of the gates (B, 3 H) and h_{t-1}."""
    n, r, u = gates.chunk(3, -1)
    state_r, state_u, state_n = F.linear(h, weight).chunk(3, -1)
    n = torch.tanh(n + torch.sigmoid(r + state_r) * (state_n + bias))
    return torch.lerp(n, h, torch.sigmoid(u + state_u))


def lstm_step(gates: Tensor, h: Tensor, c: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """h_t and c_t (B, H) from the input part of the gates (B, 4 H), h_{t-1} and c_{t-1}."""
    o, i, f, g = (gates + F.linear(h, weight)).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c
