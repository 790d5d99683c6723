"""A device that every machine has: the CPU computes, but for the code under test it is a GPU.

Tensors of this device and of the CPU cannot be mixed in an operation, and what would make the host wait until a GPU has
done its work is recorded: reading a value, shapes that depend on values, copies that are not asynchronous. Forward
passes, backward passes and optimisers give the CPU's results. (Fake tensors have neither values nor, without a GPU,
backward passes.)
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretended"
SOURCES = str(Path(__file__).resolve().parents[2] / "speechlvm")
ATEN = torch.ops.aten
COPIES = (ATEN._to_copy, ATEN.copy_)
BY_VALUE = (ATEN._local_scalar_dense, ATEN.nonzero, ATEN.masked_select, ATEN.equal, ATEN._unique2)
INDEXING = (ATEN.index, ATEN.index_put, ATEN.index_put_)

_waits: list[str] = []


@contextmanager
def pretended() -> Iterator[torch.device]:
    """The device, which can be used as long as this lasts."""
    with _Whole(), _Pretended():
        yield _DEVICE


def recorded_waits(device: torch.device, function: Callable[[], object]) -> list[str]:
    """What made the host wait for a device, pretended or of CUDA, while a function ran."""
    if device.type == NAME:
        before = len(_waits)
        function()
        return _waits[before:]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            function()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [str(warning.message) for warning in caught if "synchronizing" in str(warning.message)]


class _Module:
    """What torch asks of a device."""

    is_available = is_initialized = staticmethod(lambda: True)
    _is_in_bad_fork = staticmethod(lambda: False)
    device_count = staticmethod(lambda: 1)
    current_device = staticmethod(lambda: 0)
    manual_seed_all = staticmethod(lambda seed: None)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16, torch.float16])


# before any backward pass: the first one of a process starts a thread for each kind of device that is there
_setup_privateuseone_for_python_backend(NAME, _Module())
_DEVICE = torch.device(NAME, 0)


class _There(Tensor):
    """A tensor of the device, around the one that the CPU computes with."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> _There:
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        tensor = Tensor._make_wrapper_subclass(cls, inner.shape, **layout, device=_DEVICE)
        tensor.inner = inner
        return tensor

    def __repr__(self, **_: Any) -> str:
        return f"{NAME}: {self.inner}"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _computed(function, args, kwargs or {})


class _Pretended(TorchDispatchMode):
    """Operations that make tensors there from nothing, or from those of the CPU."""

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _computed(function, args, kwargs or {})


def _computed(function: Any, args: tuple, kwargs: dict) -> Any:
    operation = function.overloadpacket
    if operation is ATEN._pin_memory:
        pinned = args[0].clone()
        pinned.pinned = True
        return pinned
    if operation is ATEN.is_pinned:
        return hasattr(args[0], "pinned")
    given: list[Tensor] = []
    inner_args, inner_kwargs = _unwrapped(args, given), {name: _unwrapped(x, given) for name, x in kwargs.items()}
    there = [isinstance(x, _There) for x in given]
    onto = any(there)
    if kwargs.get("device") is not None:
        onto = torch.device(kwargs["device"]).type == NAME
        inner_kwargs["device"] = torch.device("cpu")
    if operation in COPIES:
        blocking = not (kwargs.get("non_blocking") or True in args[2:])
        pageable = any(not isinstance(x, _There) and not hasattr(x, "pinned") for x in given)
        if len({onto, *there}) > 1 and (blocking or pageable):
            _waits.append(_described(function))
    elif onto:
        if not all(is_there or x.dim() == 0 for is_there, x in zip(there, given, strict=True)):
            raise RuntimeError(f"tensors of the CPU and of the device: {_described(function)}")
        by_mask = operation in INDEXING and any(x is not None and x.dtype == torch.bool for x in args[1])
        if by_mask or operation in BY_VALUE:
            _waits.append(_described(function))
    result = function(*inner_args, **inner_kwargs)
    if not onto:
        return result
    result = _wrapped(result)
    return return_and_correct_aliasing(function, args, kwargs, result)


def _unwrapped(x: Any, found: list[Tensor]) -> Any:
    if isinstance(x, Tensor):
        found.append(x)
        return x.inner if isinstance(x, _There) else x
    return type(x)(_unwrapped(item, found) for item in x) if isinstance(x, list | tuple) else x


def _wrapped(x: Any) -> Any:
    if isinstance(x, Tensor):
        return _There(x)
    return type(x)(map(_wrapped, x)) if isinstance(x, list | tuple) else x


def _described(function: Any) -> str:
    lines = [frame for frame in traceback.extract_stack() if frame.filename.startswith(SOURCES)]
    return f"{function}" + (f" in {lines[-1].filename}:{lines[-1].lineno}: {lines[-1].line}" if lines else "")


class _Whole(TorchFunctionMode):
    """What torch does not offer for a device like this: LSTMs as one operation, as with cuDNN, and `tolist`."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function is torch.lstm and isinstance(args[0], _There):
            leaves, structure = tree_flatten(args)
            return _LSTM.apply(structure, *leaves)
        if function is Tensor.tolist and isinstance(args[0], _There):
            return args[0].cpu().tolist()
        return function(*args, **(kwargs or {}))


class _LSTM(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, structure: Any, *leaves: Any) -> tuple[Tensor, ...]:
        ctx.inner = [x.inner.detach().requires_grad_() if isinstance(x, _There) else x for x in leaves]
        with torch.enable_grad():
            ctx.results = torch.lstm(*tree_unflatten(ctx.inner, structure))
        return tuple(_There(result.detach()) for result in ctx.results)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple:
        tensors = [x for x in ctx.inner if isinstance(x, Tensor)]
        found = iter(torch.autograd.grad(ctx.results, tensors, [gradient.inner for gradient in gradients]))
        return None, *(_There(next(found)) if isinstance(x, Tensor) else None for x in ctx.inner)
