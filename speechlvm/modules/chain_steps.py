"""The operations of a chain forwards and backwards, written into buffers.

Thousands of products on a few rows each are bound by overhead and by cache bandwidth of the weights. Hence there is no
autograd: operations write into preallocated buffers, have explicit backward passes, and the gradient of each weight is
one product over all steps. Under bf16 autocast, only products with large weights (`_LARGE`) and those over all steps
run in bfloat16; states, latents, activations and gates stay in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from speechlvm.distributions.latent import MINIMUM_STD, RAW_OFFSET
from speechlvm.modules.chain import GRU, LSTM, SLOPE, Dense, Draw, Operation, Source, term_of

_LARGE = 2**18
"""Minimum number of elements of a weight for which bfloat16 and packing pay off in products with 16 rows."""


def with_term(op: Operation, term: Tensor) -> Operation:
    """An operation with another term, or noise."""
    return replace(op, noise=term) if isinstance(op, Draw) else replace(op, term=term)


def tensors_of(op: Operation) -> list[Tensor]:
    """Tensors of an operation, in the order of their gradients (`gradients_of`)."""
    if isinstance(op, Draw):
        return [op.noise]
    own = [getattr(op, name) for name in ("weight", "bias") if hasattr(op, name)]
    return [op.term, *own, *(source.weight for source in op.sources)]


def with_tensors(op: Operation, tensors: Iterator[Tensor]) -> Operation:
    """An operation with other tensors, in the order of `tensors_of`."""
    op = with_term(op, next(tensors))
    if isinstance(op, Draw):
        return op
    own = {name: next(tensors) for name in ("weight", "bias") if hasattr(op, name)}
    sources = tuple(replace(source, weight=next(tensors)) for source in op.sources)
    return replace(op, sources=sources, **own)


def buffer_sizes(op: Operation) -> dict[str, int]:
    """Names and sizes of the buffers of an operation: its values, and gates."""
    size = term_of(op).shape[-1]
    if isinstance(op, GRU):
        return {op.name: size // 3, f"{op.name}.gates": size // 3 * 4}
    if isinstance(op, LSTM):
        return {op.name: size // 4, op.cell: size // 4, f"{op.name}.gates": size}
    return {op.name: size}


class _Product:
    """x -> x W^T for a few rows x at a time.

    oneDNN packs the weight in advance; with 16 rows, products are then 1.4 times as fast if the weight does not fit
    into the first caches. torch has no public function for this.
    """

    def __init__(self, weight: Tensor, half: torch.dtype | None) -> None:
        large = weight.numel() >= _LARGE
        self.half = half if large and half is not None else None
        weight = weight.to(self.half or weight.dtype)
        self.packed = None
        if large and _packable(weight):
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        self.transposed = weight.t()

    def add(self, base: Tensor, x: Tensor, out: Tensor) -> None:
        """out = base + x W^T; `base` may be `out`."""
        if self.half is not None:
            x = x.to(self.half)
        if self.packed is not None:
            torch.add(base, torch.ops.mkldnn._linear_pointwise(x, self.packed, None, "none", [], ""), out=out)
        elif self.half is not None:
            torch.add(base, x @ self.transposed, out=out)
        else:
            torch.addmm(base, x, self.transposed, out=out)


def _packable(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _weight_gradient(gradient: Tensor, x: Tensor, half: torch.dtype | None) -> Tensor:
    """Gradient of a weight, over all steps: (T, B, N), (T, B, K) -> (N, K)."""
    gradient, x = gradient.flatten(0, 1), x.flatten(0, 1)
    if half is None:
        return gradient.t() @ x
    return (gradient.to(half).t() @ x.to(half)).to(gradient.dtype)


class Tape:
    """Values of all steps or, in backward, their gradients, as rows: views that are made once, not in the loop."""

    def __init__(self, values: Mapping[str, Tensor], initial: Mapping[str, Tensor], half: torch.dtype | None) -> None:
        self.values, self.initial, self.half = values, initial, half
        self.steps = len(next(iter(values.values())))

    @cached_property
    def rows(self) -> dict[str, tuple[Tensor, ...]]:
        """Views of single steps, which graphs make only of their own memory."""
        return {name: value.unbind() for name, value in self.values.items()}

    def before(self, name: str) -> tuple[Tensor, ...]:
        """Rows of the previous step."""
        return (self.initial[name], *self.rows[name][:-1])

    def of(self, source: Source) -> tuple[Tensor, ...]:
        """Rows that a source reads or, for gradients, adds to."""
        return self.before(source.value) if source.previous else self.rows[source.value]

    def whole(self, source: Source) -> Tensor:
        """(T, B, K): all values that a source has read."""
        return self.shifted(source.value) if source.previous else self.values[source.value]

    def shifted(self, name: str) -> Tensor:
        """(T, B, K): values of the previous steps."""
        return torch.cat([self.initial[name][None], self.values[name][:-1]])


Step = Callable[[int], None]


def _sum_of_sources(op: Dense | GRU | LSTM, tape: Tape, out: Sequence[Tensor]) -> Step:
    """out_t = term_t + the sum of W source_t."""
    term = op.term.unbind()
    if not op.sources:
        return lambda t: out[t].copy_(term[t])
    (first, rows), *others = [(_Product(s.weight, tape.half), tape.of(s)) for s in op.sources]

    def step(t: int) -> None:
        first.add(term[t], rows[t], out[t])
        for weight, x in others:
            weight.add(out[t], x[t], out[t])

    return step


def _back_to_sources(op: Dense | GRU | LSTM, gradients: Tape, gradient: Sequence[Tensor]) -> Step:
    """Gradients of sources from those of their sum."""
    sources = [(_Product(s.weight.t(), gradients.half), gradients.of(s)) for s in op.sources]

    def step(t: int) -> None:
        for weight, out in sources:
            weight.add(out[t], gradient[t], out[t])

    return step


def _with_sources(op: Dense | GRU | LSTM, tape: Tape, gradient: Tensor, *own: Tensor) -> list[Tensor]:
    return [gradient, *own, *(_weight_gradient(gradient, tape.whole(s), tape.half) for s in op.sources)]


def _dense(op: Dense, tape: Tape) -> Step:
    out = tape.rows[op.name]
    total = _sum_of_sources(op, tape, out)
    if not op.active:
        return total

    def step(t: int) -> None:
        total(t)
        F.leaky_relu_(out[t], SLOPE)

    return step


def _dense_back(op: Dense, tape: Tape, gradients: Tape) -> Step:
    gradient = gradients.rows[op.name]
    down = _back_to_sources(op, gradients, gradient)
    if not op.active:
        return down
    one = gradient[0].new_ones(())
    slope = torch.where(tape.values[op.name] > 0, one, SLOPE * one).unbind()

    def step(t: int) -> None:
        gradient[t].mul_(slope[t])
        down(t)

    return step


def _dense_gradients(op: Dense, tape: Tape, gradients: Tape) -> list[Tensor]:
    return _with_sources(op, tape, gradients.values[op.name])


def _draw(op: Draw, tape: Tape) -> Step:
    z, noise, size = tape.rows[op.name], op.noise.unbind(), op.noise.shape[-1]
    mean, raw = (part.unbind() for part in tape.values[op.raw].split(size, -1))
    std = torch.empty_like(noise[0])

    def step(t: int) -> None:
        torch.add(raw[t], RAW_OFFSET, out=std)
        F.softplus(std, out=std).add_(MINIMUM_STD)
        torch.addcmul(mean[t], std, noise[t], out=z[t])

    return step


def _draw_back(op: Draw, tape: Tape, gradients: Tape) -> Step:
    size = op.noise.shape[-1]
    gradient = gradients.rows[op.name]
    pairs = gradients.values[op.raw].unflatten(-1, (2, size)).unbind()
    by_std = (tape.values[op.raw][..., size:] + RAW_OFFSET).sigmoid_() * op.noise
    spread = torch.stack([torch.ones_like(by_std), by_std], 2).unbind()

    def step(t: int) -> None:
        pairs[t].addcmul_(gradient[t].unsqueeze(1), spread[t])

    return step


def _gru(op: GRU, tape: Tape) -> Step:
    """A row of gates is (n, r, u, n'): the input part (n, r, u) and the state part (r, u, n') overlap in the sum."""
    h, before, size = tape.rows[op.name], tape.before(op.name), op.weight.shape[1]
    gates = tape.values[f"{op.name}.gates"]
    gates[..., 3 * size :] = op.bias
    total = _sum_of_sources(op, tape, gates[..., : 3 * size].unbind())
    of_state, weight = gates[..., size:].unbind(), _Product(op.weight, tape.half)
    n, r, u, state_n = (part.unbind() for part in gates.split(size, -1))
    ru = gates[..., size : 3 * size].unbind()

    def step(t: int) -> None:
        total(t)
        weight.add(of_state[t], before[t], of_state[t])
        ru[t].sigmoid_()
        n[t].addcmul_(r[t], state_n[t]).tanh_()
        torch.lerp(n[t], before[t], u[t], out=h[t])

    return step


def _gru_back(op: GRU, tape: Tape, gradients: Tape) -> Step:
    size, before = op.weight.shape[1], tape.shifted(op.name)
    n, r, u, state_n = tape.values[f"{op.name}.gates"].split(size, -1)
    by_n = (1 - u) * (1 - n * n)
    slopes = torch.stack([by_n, by_n * state_n * r * (1 - r), (before - n) * u * (1 - u), by_n * r], 2)
    d_gates = gradients.values[f"{op.name}.gates"]
    d_rows, d_state_rows, slope_rows, u_rows = (
        x.unbind() for x in (d_gates.unflatten(-1, (4, size)), d_gates[..., size:], slopes, u)
    )
    down = _back_to_sources(op, gradients, d_gates[..., : 3 * size].unbind())
    weight = _Product(op.weight.t(), gradients.half)
    gradient, out = gradients.rows[op.name], gradients.before(op.name)

    def step(t: int) -> None:
        torch.mul(gradient[t].unsqueeze(1), slope_rows[t], out=d_rows[t])
        down(t)
        weight.add(out[t], d_state_rows[t], out[t])
        out[t].addcmul_(gradient[t], u_rows[t])

    return step


def _gru_gradients(op: GRU, tape: Tape, gradients: Tape) -> list[Tensor]:
    size, d_gates = op.weight.shape[1], gradients.values[f"{op.name}.gates"]
    weight = _weight_gradient(d_gates[..., size:], tape.shifted(op.name), tape.half)
    return _with_sources(op, tape, d_gates[..., : 3 * size], weight, d_gates[..., 3 * size :].sum((0, 1)))


def _lstm(op: LSTM, tape: Tape) -> Step:
    h, c, size = tape.rows[op.name], tape.rows[op.cell], op.weight.shape[1]
    h_before, c_before = tape.before(op.name), tape.before(op.cell)
    gates = tape.values[f"{op.name}.gates"]
    rows, weight = gates.unbind(), _Product(op.weight, tape.half)
    total = _sum_of_sources(op, tape, rows)
    o, i, f, g = (part.unbind() for part in gates.split(size, -1))
    oif = gates[..., : 3 * size].unbind()

    def step(t: int) -> None:
        total(t)
        weight.add(rows[t], h_before[t], rows[t])
        oif[t].sigmoid_()
        g[t].tanh_()
        torch.mul(f[t], c_before[t], out=c[t]).addcmul_(i[t], g[t])
        torch.tanh(c[t], out=h[t]).mul_(o[t])

    return step


def _lstm_back(op: LSTM, tape: Tape, gradients: Tape) -> Step:
    size = op.weight.shape[1]
    o, i, f, g = tape.values[f"{op.name}.gates"].split(size, -1)
    tanh = tape.values[op.cell].tanh()
    to_cell, by_o = (o * (1 - tanh * tanh)).unbind(), (tanh * o * (1 - o)).unbind()
    slopes = torch.stack([g * i * (1 - i), tape.shifted(op.cell) * f * (1 - f), i * (1 - g * g)], 2).unbind()
    d_gates = gradients.values[f"{op.name}.gates"]
    d_o, d_ifg = d_gates[..., :size].unbind(), d_gates[..., size:].unflatten(-1, (3, size)).unbind()
    rows, f = d_gates.unbind(), f.unbind()
    down, weight = _back_to_sources(op, gradients, rows), _Product(op.weight.t(), gradients.half)
    d_h, d_c = gradients.rows[op.name], gradients.rows[op.cell]
    h_out, c_out = gradients.before(op.name), gradients.before(op.cell)

    def step(t: int) -> None:
        torch.mul(d_h[t], by_o[t], out=d_o[t])
        d_c[t].addcmul_(d_h[t], to_cell[t])
        torch.mul(d_c[t].unsqueeze(1), slopes[t], out=d_ifg[t])
        down(t)
        weight.add(h_out[t], rows[t], h_out[t])
        c_out[t].addcmul_(d_c[t], f[t])

    return step


def _lstm_gradients(op: LSTM, tape: Tape, gradients: Tape) -> list[Tensor]:
    d_gates = gradients.values[f"{op.name}.gates"]
    return _with_sources(op, tape, d_gates, _weight_gradient(d_gates, tape.shifted(op.name), tape.half))


_FORWARD = {Dense: _dense, Draw: _draw, GRU: _gru, LSTM: _lstm}
_BACKWARD = {Dense: _dense_back, Draw: _draw_back, GRU: _gru_back, LSTM: _lstm_back}
_GRADIENTS = {Dense: _dense_gradients, Draw: lambda *_: [None], GRU: _gru_gradients, LSTM: _lstm_gradients}


def run_forward(operations: Sequence[Operation], tape: Tape) -> None:
    """Write the values of all steps."""
    todo = [_FORWARD[type(op)](op, tape) for op in operations]
    for t in range(tape.steps):
        for step in todo:
            step(t)


def run_backward(operations: Sequence[Operation], tape: Tape, gradients: Tape) -> None:
    """Add to the gradients of values what follows from those of later ones."""
    todo = [_BACKWARD[type(op)](op, tape, gradients) for op in reversed(operations)]
    for t in reversed(range(tape.steps)):
        for step in todo:
            step(t)


def gradients_of(op: Operation, tape: Tape, gradients: Tape) -> list[Tensor | None]:
    """Gradients of an operation's tensors (`tensors_of`) from those of its values."""
    return _GRADIENTS[type(op)](op, tape, gradients)
