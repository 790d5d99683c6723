"""Pretended CUDA graphs: the operations of a function, recorded once and run again on the same tensors.

As with those of a GPU, a capture executes nothing, numbers of the host stay as they were, and nothing can be read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from devices import BY_VALUE


class Recording(TorchDispatchMode):
    """A graph of what is done under this mode."""

    def __init__(self) -> None:
        super().__init__()
        self._operations: list[tuple] = []
        self._written: dict[int, tuple[Tensor, Tensor]] = {}  # storages that were changed, and as they were

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if function.overloadpacket in BY_VALUE:
            raise RuntimeError(f"operation not permitted when stream is capturing: {function}")
        named = dict(zip((a.name for a in function._schema.arguments), args, strict=False)) | kwargs
        for argument in function._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                for x in _tensors(named.get(argument.name)):
                    self._written.setdefault(_place(x), (_bytes(x), _bytes(x).clone()))
        # of all tensors other ones in the same memory: their shapes stay as they are now
        again = tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, (args, kwargs))
        known = {_place(x) for x in _tensors(again)}
        result = function(*args, **kwargs)
        fresh = [None if _place(x) in known else x.detach() for x in _tensors(result)]
        if not function.is_view:
            self._operations.append((function, *again, fresh))
        return result

    def undo(self) -> None:
        """As if nothing had been executed."""
        for *_, fresh in self._operations:
            for x in fresh:
                if x is not None:
                    x.fill_(torch.nan if x.is_floating_point() else 0)
        for now, before in self._written.values():
            now.copy_(before)

    def __call__(self) -> None:
        """Replay the graph; no other mode sees its operations, as none come from Python."""
        with _disable_current_modes():
            for function, args, kwargs, fresh in self._operations:
                for old, new in zip(fresh, _tensors(function(*args, **kwargs)), strict=True):
                    if old is not None:
                        old.copy_(new)


def capture(function: Callable[[], None], _device: torch.device) -> Recording:
    """In place of `speechlvm.modules.loop.capture`."""
    recording = Recording()
    try:
        with recording:
            function()
    finally:
        recording.undo()
    return recording


def no_capture(function: Callable[[], None], _device: torch.device) -> Callable[[], None]:
    """Likewise, but the function is called each time."""
    return function


def warm_up(function: Callable[[], None], _device: torch.device) -> None:
    """In place of `speechlvm.modules.loop.warm_up`."""
    for _ in range(2):
        function()


def _tensors(values: Any) -> list[Tensor]:
    return [x for x in tree_leaves(values) if isinstance(x, Tensor)]


def _place(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _bytes(x: Tensor) -> Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(x.untyped_storage())
