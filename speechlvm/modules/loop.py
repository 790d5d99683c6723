"""Loops over the steps of a model: on a GPU, a step is one CUDA graph, and elsewhere the calls that it consists of.

A step issues tens to hundreds of small kernels, and Python needs longer for each than a GPU. A CUDA graph is captured
from a step once and then replayed: all its kernels, on the same memory. Hence what is given to the steps lies on the
device for many of them, a counter on the device says which is next, and outputs are collected there:

    given (n, B, ...) --at t--> step --at t--> outputs (n, B, ...)
    memory -------------------/    \\---------> memory
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
Step = Callable[[Tensors, Tensors], tuple[Tensors, Tensors]]
"""(memory, what is given to the step) -> (its outputs, the memory after it), tensors by name."""

GRAPH_DEVICES = ("cuda",)
"""Types of devices that run graphs."""

LEAST_STEPS = 256
"""Fewer are not worth a capture, which waits for the device and gives back memory that is kept for later."""

_WARM_UPS = 2

_refused: set[torch.device] = set()
"""Devices on which a capture has failed: torch takes it to go on, so that there must not be another one."""


class Loop:
    """Steps that depend on the steps before.

    A graph repeats what a step did when it was captured. If `fixed`, the step is a function of its arguments and of
    tensors that it may change in place; it has no other side effects, and nothing in it depends on numbers that change
    on the host, such as counters in Python.

    Args:
        step: one step.
        memory: before the first step; the memory after a step has the same names, shapes and types.
        steps: how many there will be.
        fixed: whether the step can be captured.
    """

    def __init__(self, step: Step, memory: Tensors, steps: int, fixed: bool = True) -> None:
        self.memory = memory
        """After the last step."""
        self._step, self._steps, self._fixed = step, steps, fixed
        self._replay: Callable[[], None] | None = None

    def run(self, given: Tensors) -> Tensors:
        """Further steps, no more than the first time.

        Args:
            given: name -> (n, B, ...), what is given to each of n steps.

        Returns:
            name -> (n, B, ...), the outputs of all steps.
        """
        some = next(iter(given.values()))
        graphs = self._fixed and len(some) > _WARM_UPS and has_graphs(some.device, self._steps)
        if self._replay is None and not graphs:
            of_steps = []
            for values in zip(*(value.unbind() for value in given.values()), strict=True):
                outputs, self.memory = self._step(self.memory, dict(zip(given, values, strict=True)))
                of_steps.append(outputs)
            return {name: torch.stack([outputs[name] for outputs in of_steps]) for name in of_steps[0]}
        if self._replay is None:
            done = self._start(given)
        else:
            done = 0
            self._t.zero_()
            for name, value in given.items():
                self._given[name][: len(value)].copy_(value)
        for _ in range(done, len(some)):
            self._replay()
        return {name: value[: len(some)].clone() for name, value in self._outputs.items()}

    def _start(self, given: Tensors) -> int:
        """Make the tensors that a graph reads and writes, and the graph; returns the number of steps done."""
        outputs, memory = self._step(self.memory, {name: value[0] for name, value in given.items()})
        some = next(iter(given.values()))
        self.memory = {name: value.clone() for name, value in memory.items()}
        self._given = {name: value.clone() for name, value in given.items()}
        self._outputs = {name: value.repeat(len(some), *[1] * value.dim()) for name, value in outputs.items()}
        self._t = torch.ones(1, dtype=torch.int64, device=some.device)
        self._replay = graph(self._advance, some.device)
        return 1 + _WARM_UPS

    def _advance(self) -> None:
        """Step number t."""
        given = {name: value.index_select(0, self._t).squeeze(0) for name, value in self._given.items()}
        outputs, memory = self._step(self.memory, given)
        for name, value in outputs.items():
            self._outputs[name].index_copy_(0, self._t, value.unsqueeze(0))
        # first all copies: what is kept of a step may be, or show part of, what was kept of the one before
        for kept, value in [(self.memory[name], value.clone()) for name, value in memory.items()]:
            kept.copy_(value)
        self._t.add_(1)


def has_graphs(device: torch.device, steps: int | None = None) -> bool:
    """Whether (so many) steps are captured: not with gradients, nor under autocast, which keeps copies of weights."""
    if steps is not None and steps < LEAST_STEPS:
        return False
    return device.type in GRAPH_DEVICES and not torch.is_grad_enabled() and not torch.is_autocast_enabled(device.type)


def graph(function: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """A function as a graph, after two calls; if it cannot be captured, with a warning, the function itself.

    Nothing that the function makes may be used after it, as graphs share that memory.

    Raises:
        torch.OutOfMemoryError: there is no memory for it.
    """
    warm_up(function, device)
    if device in _refused:
        return function
    try:
        return capture(function, device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        _refused.add(device)
        warnings.warn(f"no CUDA graphs, so that steps take longer: {error}", stacklevel=2)
        return function


def warm_up(function: Callable[[], None], device: torch.device) -> None:
    """Call a function twice where it can then be captured."""
    stream, _ = _place(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            function()
    torch.cuda.current_stream(device).wait_stream(stream)


def capture(function: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Capture a function, which does not execute it; the result does so.

    Raises:
        RuntimeError: it does what a graph cannot, such as waiting for the device.
    """
    (stream, pool), captured = _place(device), torch.cuda.CUDAGraph()
    # a capture that fails leaves its stream the current one; other threads may go on copying batches meanwhile
    current = torch.cuda.stream(torch.cuda.current_stream(device))
    with current, torch.cuda.graph(captured, pool, stream, capture_error_mode="thread_local"):
        function()
    return captured.replay


@cache
def _place(device: torch.device) -> tuple[torch.cuda.Stream, tuple[int, int]]:
    """Stream and memory of all graphs: torch keeps a workspace for every stream that multiplies matrices."""
    return torch.cuda.Stream(device), torch.cuda.graph_pool_handle()
