"""Chains as one autograd node.

Thousands of products on a few rows each are bound by overhead and by cache bandwidth of the weights. Hence there is no
autograd inside: the node writes into preallocated buffers, has an explicit backward pass, and computes the gradient of
each weight as one product over all steps. Under bf16 autocast, only products with large weights (`_LARGE`) and those
over all steps run in bfloat16; states, latents, activations and gates stay in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import repeat

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from speechlvm.distributions.latent import MINIMUM_STD, RAW_OFFSET
from speechlvm.modules.chain import GRU, LSTM, SLOPE, Dense, Draw, Operation, Source, count_steps, term_of
from speechlvm.modules.frames import full_precision

_LARGE = 2**18
"""Minimum number of elements of a weight for which bfloat16 and packing pay off in products with 16 rows."""


def run_chain(
    operations: Sequence[Operation], initial: Mapping[str, Tensor], outputs: Sequence[str]
) -> dict[str, Tensor]:
    """Evaluate a chain.

    Args:
        operations: operations of a step, in order.
        initial: (B, size) initial values that the first step needs; their type is that of the chain.
        outputs: names of the values to return.

    Returns:
        name -> (T, B, size), differentiable.
    """
    like = next(iter(initial.values()))
    steps = count_steps(operations)
    expanded = [_with_term(op, term_of(op).to(like.dtype).expand(steps, len(like), -1)) for op in operations]
    tensors = [tensor for op in expanded for tensor in _tensors(op)]
    half = torch.get_autocast_dtype(like.device.type) if torch.is_autocast_enabled(like.device.type) else None
    with full_precision(like):
        values = _Chain.apply(expanded, tuple(initial), tuple(outputs), half, *initial.values(), *tensors)
    return dict(zip(outputs, values, strict=True))


# -- operations of a step --------------------------------------------------------------------------------------------


def _with_term(op: Operation, term: Tensor) -> Operation:
    return replace(op, noise=term) if isinstance(op, Draw) else replace(op, term=term)


def _tensors(op: Operation) -> list[Tensor]:
    """Tensors of an operation, in the order of `_with_tensors` and of the gradients in backward."""
    if isinstance(op, Draw):
        return [op.noise]
    own = [getattr(op, name) for name in ("weight", "bias") if hasattr(op, name)]
    return [op.term, *own, *(source.weight for source in op.sources)]


def _with_tensors(op: Operation, tensors: Iterator[Tensor]) -> Operation:
    op = _with_term(op, next(tensors))
    if isinstance(op, Draw):
        return op
    own = {name: next(tensors) for name in ("weight", "bias") if hasattr(op, name)}
    sources = tuple(replace(source, weight=next(tensors)) for source in op.sources)
    return replace(op, sources=sources, **own)


def _buffers(op: Operation) -> dict[str, int]:
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


def _gradient(gradient: Tensor, x: Tensor, half: torch.dtype | None) -> Tensor:
    """Gradient of a weight, over all steps: (T, B, N), (T, B, K) -> (N, K)."""
    gradient, x = gradient.flatten(0, 1), x.flatten(0, 1)
    if half is None:
        return gradient.t() @ x
    return (gradient.to(half).t() @ x.to(half)).to(gradient.dtype)


class _Tape:
    """Values of all steps or, in backward, their gradients, as rows: views that are made once, not in the loop."""

    def __init__(self, values: Mapping[str, Tensor], initial: Mapping[str, Tensor], half: torch.dtype | None) -> None:
        self.values, self.initial, self.half = values, initial, half
        self.rows = {name: value.unbind() for name, value in values.items()}

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


def _sum_of_sources(op: Dense | GRU | LSTM, tape: _Tape, out: Sequence[Tensor]) -> Step:
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


def _back_to_sources(op: Dense | GRU | LSTM, gradients: _Tape, gradient: Sequence[Tensor]) -> Step:
    """Gradients of sources from those of their sum."""
    sources = [(_Product(s.weight.t(), gradients.half), gradients.of(s)) for s in op.sources]

    def step(t: int) -> None:
        for weight, out in sources:
            weight.add(out[t], gradient[t], out[t])

    return step


def _weights_of_sources(op: Dense | GRU | LSTM, tape: _Tape, gradient: Tensor) -> list[Tensor]:
    return [_gradient(gradient, tape.whole(s), tape.half) for s in op.sources]


def _dense(op: Dense, tape: _Tape) -> Step:
    out = tape.rows[op.name]
    total = _sum_of_sources(op, tape, out)
    if not op.active:
        return total

    def step(t: int) -> None:
        total(t)
        F.leaky_relu_(out[t], SLOPE)

    return step


def _dense_back(op: Dense, tape: _Tape, gradients: _Tape) -> tuple[Step, Callable[[], list[Tensor]]]:
    gradient = gradients.rows[op.name]
    down = _back_to_sources(op, gradients, gradient)

    def finish() -> list[Tensor]:
        whole = gradients.values[op.name]
        return [whole, *_weights_of_sources(op, tape, whole)]

    if not op.active:
        return down, finish
    one = gradient[0].new_ones(())
    slope = torch.where(tape.values[op.name] > 0, one, SLOPE * one).unbind()

    def step(t: int) -> None:
        gradient[t].mul_(slope[t])
        down(t)

    return step, finish


def _draw(op: Draw, tape: _Tape) -> Step:
    z, noise, size = tape.rows[op.name], op.noise.unbind(), op.noise.shape[-1]
    mean, raw = (part.unbind() for part in tape.values[op.raw].split(size, -1))
    std = torch.empty_like(noise[0])

    def step(t: int) -> None:
        torch.add(raw[t], RAW_OFFSET, out=std)
        F.softplus(std, out=std).add_(MINIMUM_STD)
        torch.addcmul(mean[t], std, noise[t], out=z[t])

    return step


def _draw_back(op: Draw, tape: _Tape, gradients: _Tape) -> tuple[Step, Callable[[], list[Tensor]]]:
    size = op.noise.shape[-1]
    gradient = gradients.rows[op.name]
    pairs = gradients.values[op.raw].unflatten(-1, (2, size)).unbind()
    by_std = (tape.values[op.raw][..., size:] + RAW_OFFSET).sigmoid_() * op.noise
    spread = torch.stack([torch.ones_like(by_std), by_std], 2).unbind()

    def step(t: int) -> None:
        pairs[t].addcmul_(gradient[t].unsqueeze(1), spread[t])

    return step, lambda: [None]


def _gru(op: GRU, tape: _Tape) -> Step:
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


def _gru_back(op: GRU, tape: _Tape, gradients: _Tape) -> tuple[Step, Callable[[], list[Tensor]]]:
    size, before = op.weight.shape[1], tape.shifted(op.name)
    n, r, u, state_n = tape.values[f"{op.name}.gates"].split(size, -1)
    by_n = (1 - u) * (1 - n * n)
    slopes = torch.stack([by_n, by_n * state_n * r * (1 - r), (before - n) * u * (1 - u), by_n * r], 2)
    d_gates = torch.empty_like(slopes)
    whole = d_gates.flatten(2)
    d_input, d_state = whole[..., : 3 * size], whole[..., size:]
    down, weight = _back_to_sources(op, gradients, d_input.unbind()), _Product(op.weight.t(), gradients.half)
    d_rows, d_state_rows, slope_rows, u_rows = (x.unbind() for x in (d_gates, d_state, slopes, u))
    gradient, out = gradients.rows[op.name], gradients.before(op.name)

    def step(t: int) -> None:
        torch.mul(gradient[t].unsqueeze(1), slope_rows[t], out=d_rows[t])
        down(t)
        weight.add(out[t], d_state_rows[t], out[t])
        out[t].addcmul_(gradient[t], u_rows[t])

    def finish() -> list[Tensor]:
        own = [_gradient(d_state, before, tape.half), d_gates[:, :, 3].sum((0, 1))]
        return [d_input, *own, *_weights_of_sources(op, tape, d_input)]

    return step, finish


def _lstm(op: LSTM, tape: _Tape) -> Step:
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


def _lstm_back(op: LSTM, tape: _Tape, gradients: _Tape) -> tuple[Step, Callable[[], list[Tensor]]]:
    size = op.weight.shape[1]
    o, i, f, g = tape.values[f"{op.name}.gates"].split(size, -1)
    tanh = tape.values[op.cell].tanh()
    to_cell, by_o = (o * (1 - tanh * tanh)).unbind(), (tanh * o * (1 - o)).unbind()
    slopes = torch.stack([g * i * (1 - i), tape.shifted(op.cell) * f * (1 - f), i * (1 - g * g)], 2).unbind()
    d_gates = torch.empty_like(tape.values[f"{op.name}.gates"])
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

    def finish() -> list[Tensor]:
        own = _gradient(d_gates, tape.shifted(op.name), tape.half)
        return [d_gates, own, *_weights_of_sources(op, tape, d_gates)]

    return step, finish


_FORWARD = {Dense: _dense, Draw: _draw, GRU: _gru, LSTM: _lstm}
_BACKWARD = {Dense: _dense_back, Draw: _draw_back, GRU: _gru_back, LSTM: _lstm_back}


class _Chain(torch.autograd.Function):
    """All steps of all operations as one node."""

    @staticmethod
    def forward(ctx, operations, names, outputs, half, *tensors):
        initial = dict(zip(names, tensors, strict=False))
        given = iter(tensors[len(names) :])
        operations = [_with_tensors(op, given) for op in operations]
        steps = term_of(operations[0]).shape[0]
        batch = tensors[0].shape[0]
        sizes = {name: size for op in operations for name, size in _buffers(op).items()}
        values = {name: tensors[0].new_empty(steps, batch, size) for name, size in sizes.items()}
        tape = _Tape(values, initial, half)
        todo = [_FORWARD[type(op)](op, tape) for op in operations]
        for t in range(steps):
            for step in todo:
                step(t)
        ctx.operations = [_with_tensors(op, repeat(None)) for op in operations]  # the tensors are saved below
        ctx.names, ctx.outputs, ctx.half, ctx.kept = names, outputs, half, tuple(values)
        ctx.save_for_backward(*tensors, *values.values())
        return tuple(values[name] for name in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *incoming):
        saved = ctx.saved_tensors
        count = len(saved) - len(ctx.kept)
        initial, given = dict(zip(ctx.names, saved, strict=False)), iter(saved[len(ctx.names) : count])
        operations = [_with_tensors(op, given) for op in ctx.operations]
        tape = _Tape(dict(zip(ctx.kept, saved[count:], strict=True)), initial, ctx.half)
        wanted = dict(zip(ctx.outputs, incoming, strict=True))
        gradients = _Tape(
            {
                name: wanted[name].clone(memory_format=torch.contiguous_format)
                if name in wanted
                else torch.zeros_like(value)
                for name, value in tape.values.items()
                if not name.endswith(".gates")
            },
            {name: torch.zeros_like(value) for name, value in initial.items()},
            ctx.half,
        )
        steps, finishes = zip(*(_BACKWARD[type(op)](op, tape, gradients) for op in operations), strict=True)
        steps = steps[::-1]
        for t in reversed(range(len(saved[count]))):
            for step in steps:
                step(t)
        own = (gradient for finish in finishes for gradient in finish())
        return (None, None, None, None, *gradients.initial.values(), *own)
