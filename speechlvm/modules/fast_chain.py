"""Chains as one autograd node; on a GPU, blocks of their steps are CUDA graphs.

A step issues tens of small kernels, and Python needs longer for each than a GPU. A graph of `BLOCK` steps, forwards or
backwards, is captured once for chains of the same shapes and replayed on memory of its own, into which weights, terms
and values are copied, and from there results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import repeat

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from speechlvm.modules import loop
from speechlvm.modules.chain import Draw, Operation, count_steps, term_of
from speechlvm.modules.chain_steps import (
    Tape,
    buffer_sizes,
    gradients_of,
    run_backward,
    run_forward,
    tensors_of,
    with_tensors,
    with_term,
)
from speechlvm.modules.frames import full_precision

BLOCK = 32
"""Steps of a graph. A shorter chain is not worth one."""

_ROWS = 16
"""Graphs have so many rows, or twice as many, or four times ..., as batches of whole utterances differ in size."""

_KEPT = 16
"""Graphs forwards and backwards that are kept: levels of a model, times sizes of its batches."""


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
    expanded = [with_term(op, term_of(op).to(like.dtype).expand(steps, len(like), -1)) for op in operations]
    tensors = [tensor for op in expanded for tensor in tensors_of(op)]
    half = torch.get_autocast_dtype(like.device.type) if torch.is_autocast_enabled(like.device.type) else None
    with full_precision(like):
        values = _Chain.apply(expanded, tuple(initial), tuple(outputs), half, *initial.values(), *tensors)
    return dict(zip(outputs, values, strict=True))


class _Chain(torch.autograd.Function):
    """All steps of all operations as one node."""

    @staticmethod
    def forward(ctx, operations, names, outputs, half, *tensors):
        initial = dict(zip(names, tensors, strict=False))
        given = iter(tensors[len(names) :])
        operations = [with_tensors(op, given) for op in operations]
        tape = Tape(_buffers(operations, tensors[0]), initial, half)
        graphs = _graphs_of(operations, tape)
        (run_forward if graphs is None else graphs.run_forward)(operations, tape)
        ctx.operations = [with_tensors(op, repeat(None)) for op in operations]  # the tensors are saved
        ctx.names, ctx.outputs, ctx.half, ctx.kept, ctx.graphs = names, outputs, half, tuple(tape.values), graphs
        needed = (tensor for op in operations for tensor in tensors_of(_without_term(op)))
        ctx.save_for_backward(*initial.values(), *needed, *tape.values.values())
        return tuple(tape.values[name] for name in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *incoming):
        saved = ctx.saved_tensors
        count = len(saved) - len(ctx.kept)
        initial, given = dict(zip(ctx.names, saved, strict=False)), iter(saved[len(ctx.names) : count])
        operations = [with_tensors(op, given) for op in ctx.operations]
        tape = Tape(dict(zip(ctx.kept, saved[count:], strict=True)), initial, ctx.half)
        wanted = dict(zip(ctx.outputs, incoming, strict=True))
        gradients = Tape(
            {
                name: wanted[name].clone(memory_format=torch.contiguous_format)
                if name in wanted
                else torch.zeros_like(value)
                for name, value in tape.values.items()
            },
            {name: torch.zeros_like(value) for name, value in initial.items()},
            ctx.half,
        )
        (run_backward if ctx.graphs is None else ctx.graphs.run_backward)(operations, tape, gradients)
        own = (gradient for op in operations for gradient in gradients_of(op, tape, gradients))
        return (None, None, None, None, *gradients.initial.values(), *own)


def _without_term(op: Operation) -> Operation:
    """With a term of the same shape that takes no memory: backwards, only noise is needed."""
    return op if isinstance(op, Draw) else replace(op, term=op.term.new_empty(()).expand(op.term.shape))


class _Graphs:
    """Graphs of `BLOCK` steps of a chain, forwards and backwards, and the memory that they work on.

    Rows do not depend on other rows, nor steps on later ones: rows that a batch does not have, and steps after its
    last, may hold anything. Backwards, where steps do depend on later ones, these are set to 0.

    Args:
        operations: of a step, with shapes in place of tensors.
        initial: names of initial values, and their sizes.
        like: a tensor of the type and device of all memory.
        half: type of large products, if it is another one.
    """

    def __init__(
        self, operations: Sequence[Operation], initial: Mapping[str, int], like: Tensor, half: torch.dtype | None
    ) -> None:
        _, rows, _ = term_of(operations[0])
        self._operations = [with_tensors(op, map(like.new_zeros, tensors_of(op))) for op in operations]
        self._tape, self._gradients = (
            Tape(
                {name: value.zero_() for name, value in _buffers(self._operations, like).items()},
                {name: like.new_zeros(rows, size) for name, size in initial.items()},
                half,
            )
            for _ in range(2)
        )
        self._forward = loop.graph(lambda: run_forward(self._operations, self._tape), like.device)

    @cached_property
    def _backward(self) -> Callable[[], None]:
        return loop.graph(
            lambda: run_backward(self._operations, self._tape, self._gradients), term_of(self._operations[0]).device
        )

    def run_forward(self, operations: Sequence[Operation], tape: Tape) -> None:
        """See `chain_steps.run_forward`."""
        own = self._tape
        _copy(_weights(operations), _weights(self._operations))
        _copy(tape.initial.values(), own.initial.values())
        for first in range(0, tape.steps, BLOCK):
            _copy(_terms(operations, first), _terms(self._operations))
            self._forward()
            _copy(own.values.values(), (value[first:] for value in tape.values.values()))
            _copy((own.values[name][-1] for name in own.initial), own.initial.values())

    def run_backward(self, operations: Sequence[Operation], tape: Tape, gradients: Tape) -> None:
        """See `chain_steps.run_backward`."""
        backward, own, of_own = self._backward, self._tape, self._gradients
        carried = list(of_own.initial.values())
        _copy(_weights(operations), _weights(self._operations))
        torch._foreach_zero_(carried)
        for first in reversed(range(0, tape.steps, BLOCK)):
            steps = min(BLOCK, tape.steps - first)
            if steps < BLOCK:
                torch._foreach_zero_([x[steps:] for part in (own, of_own) for x in part.values.values()])
            _copy(_noise(operations, first), _noise(self._operations))
            before = (x if first == 0 else tape.values[name][first - 1] for name, x in tape.initial.items())
            _copy(before, own.initial.values())
            for whole, part in ((tape, own), (gradients, of_own)):
                _copy((value[first:] for value in whole.values.values()), part.values.values())
            torch._foreach_add_([of_own.values[name][steps - 1] for name in of_own.initial], carried)
            torch._foreach_zero_(carried)
            backward()
            _copy(of_own.values.values(), (value[first:] for value in gradients.values.values()))
        _copy(carried, gradients.initial.values())


def _graphs_of(operations: Sequence[Operation], tape: Tape) -> _Graphs | None:
    """Graphs for a chain and its values, or None."""
    like = term_of(operations[0])
    steps, batch, _ = like.shape
    if like.device.type not in loop.GRAPH_DEVICES or steps < BLOCK:
        return None
    rows = max(_ROWS, 1 << (batch - 1).bit_length())

    def shape(x: Tensor) -> torch.Size:
        return torch.Size((BLOCK, rows, x.shape[-1])) if x.dim() == 3 else x.shape

    shapes = tuple(with_tensors(op, map(shape, tensors_of(op))) for op in operations)
    initial = tuple((name, value.shape[-1]) for name, value in tape.initial.items())
    return _make_graphs(shapes, initial, like.dtype, like.device, tape.half)


@lru_cache(maxsize=_KEPT)
def _make_graphs(
    operations: tuple[Operation, ...],
    initial: tuple[tuple[str, int], ...],
    dtype: torch.dtype,
    device: torch.device,
    half: torch.dtype | None,
) -> _Graphs:
    with torch.inference_mode(False):  # as training goes on writing into the same memory
        return _Graphs(operations, dict(initial), torch.empty(0, dtype=dtype, device=device), half)


def _buffers(operations: Sequence[Operation], like: Tensor) -> dict[str, Tensor]:
    shape = term_of(operations[0]).shape[:2]
    return {name: like.new_empty(*shape, size) for op in operations for name, size in buffer_sizes(op).items()}


def _weights(operations: Sequence[Operation]) -> Iterator[Tensor]:
    return (x for op in operations for x in tensors_of(op) if x.dim() < 3)


def _terms(operations: Sequence[Operation], first: int = 0) -> Iterator[Tensor]:
    """From a step on."""
    return (term_of(op)[first:] for op in operations)


def _noise(operations: Sequence[Operation], first: int = 0) -> Iterator[Tensor]:
    return _terms([op for op in operations if isinstance(op, Draw)], first)


def _copy(sources: Iterable[Tensor], targets: Iterable[Tensor]) -> None:
    """Copy as much of each as there is in both, from their first rows and steps on."""
    if pairs := list(zip(sources, targets, strict=True)):
        here = [target[tuple(map(slice, source.shape))] for source, target in pairs]
        torch._foreach_copy_(here, [source[tuple(map(slice, target.shape))] for source, target in pairs])
