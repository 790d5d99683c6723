"""Parts of benchmarks: an optimiser step of the trainer, what a run consists of, and the machine's limits."""

from __future__ import annotations

import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from speechlvm.data.dumps.dataset import Batch
from speechlvm.distributions.noise import Noise
from speechlvm.models.base import Model
from speechlvm.observation import Observation
from speechlvm.scoring.objective import objective
from speechlvm.utils.devices import to_device


def training_step(
    model: Model, observation: Observation, batch: Batch, precision: torch.dtype | None, foreach: bool | None = None
) -> Callable[[], None]:
    """A function that takes one Adam step on the batch, including code lookup, noise and auxiliary losses.

    `foreach`: clip all gradients in one operation, as on GPUs; None: torch's default for this device.
    """
    device = next(model.parameters()).device
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        data, lengths = to_device(batch.data, device), to_device(batch.lengths, device)
        noise = Noise(batch.noise_keys(0, 0), device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision is not None):
            bound = model.score(observation.inputs(data, lengths), observation.target(data), lengths, noise)
        objective(bound, batch.frames, auxiliary_weights=dict.fromkeys(bound.auxiliary, 1.0)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=foreach)
        optimizer.step()

    return step


def product_gflop(run: Callable[[], None]) -> float:
    """Floating-point operations in the matrix products and convolutions of one run, in 1e9."""

    def product(base: torch.Size, a: torch.Size, b: torch.Size, *_: object, **__: object) -> int:
        return 2 * a[0] * a[1] * b[1]

    def packed(x: torch.Size, weight: torch.Size, *_: object, **__: object) -> int:
        return 2 * x[0] * x[1] * weight[0]

    def recurrent(x: torch.Size, of_input: torch.Size, of_state: torch.Size, *_: object, **__: object) -> int:
        return 2 * x[0] * x[1] * (of_input[0] * of_input[1] + of_state[0] * of_state[1])

    def recurrent_backward(*shapes: torch.Size, **__: object) -> int:
        return 2 * recurrent(*shapes)

    def cudnn(x: torch.Size, weights: Sequence[torch.Size], *_: object, **__: object) -> int:
        return 2 * x[0] * x[1] * sum(weight[0] * weight[1] for weight in weights if len(weight) == 2)

    def cudnn_backward(*shapes: Any, **__: object) -> int:
        return 2 * cudnn(*shapes)

    known = {
        torch.ops.aten._cudnn_rnn: cudnn,
        torch.ops.aten._cudnn_rnn_backward: cudnn_backward,
        torch.ops.aten.addmm_: product,
        torch.ops.mkldnn._linear_pointwise: packed,
        torch.ops.aten.mkldnn_rnn_layer: recurrent,
        torch.ops.aten.mkldnn_rnn_layer_backward: recurrent_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        run()
    return counter.get_total_flops() / 1e9


@dataclass
class Counts:
    """What a run consists of, without views.

    Attributes:
        operations: number of tensor operations: about the kernels that a GPU runs without CUDA graphs.
        bytes: sizes of their inputs and outputs: what they move if each reads and writes its tensors once.
    """

    operations: int = 0
    bytes: int = 0


def counts(run: Callable[[], None]) -> Counts:
    """Count the operations of one run, with their gradients."""
    with _Counter() as counter:
        run()
    return counter.counts


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if not function.is_view:
            self.counts.operations += 1
            name = function.overloadpacket.__name__
            if "empty" not in name:  # which allocates
                read = args[1:] if name in ("copy_", "fill_", "zero_") else args
                further = [value for key, value in (kwargs or {}).items() if key != "out"]
                self.counts.bytes += sum(map(_bytes, tree_leaves((read, further, result))))
        return result


def _bytes(value: object) -> int:
    """Bytes of a tensor's distinct elements: fewer than it has if it is expanded."""
    if not isinstance(value, Tensor):
        return 0
    distinct = 1
    for size, stride in zip(value.shape, value.stride(), strict=True):
        distinct *= size if stride or not size else 1
    return distinct * value.element_size()


@dataclass
class Launches:
    """What one run made a GPU do.

    Attributes:
        calls: kernels, graphs, copies and fills that Python had it start.
        kernels: kernels, copies and fills that it ran; with CUDA graphs, more than `calls`.
        waits: times that Python waited for it.
        busy_seconds: time in kernels, copies and fills.
        longest: the names that took most time: (name, number, seconds).
    """

    calls: int = 0
    kernels: int = 0
    waits: int = 0
    busy_seconds: float = 0.0
    longest: list[tuple[str, int, float]] = field(default_factory=list)


def launches(run: Callable[[], None], device: torch.device) -> Launches:
    """Profile one run on a GPU."""
    found = _profiled(run, device)
    found.waits -= _profiled(lambda: None, device).waits  # those of the profiler, and for the end of the run
    return found


def _profiled(run: Callable[[], None], device: torch.device) -> Launches:
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    synchronise(device)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        run()
        synchronise(device)
    found, on_device = Launches(), defaultdict(lambda: (0, 0.0))
    for event in profiler.profiler.kineto_results.events():  # key_averages takes a minute for a million
        if event.device_type() == DeviceType.CUDA:
            number, seconds = on_device[event.name()]
            on_device[event.name()] = number + 1, seconds + event.duration_ns() * 1e-9
        elif "Synchronize" in event.name():
            found.waits += 1
        elif any(word in event.name() for word in ("Launch", "Memcpy", "Memset")):
            found.calls += 1
    found.kernels = sum(number for number, _ in on_device.values())
    found.busy_seconds = sum(seconds for _, seconds in on_device.values())
    longest = sorted(on_device.items(), key=lambda kernel: -kernel[1][1])
    found.longest = [(name, *of_kernel) for name, of_kernel in longest[:8]]
    return found


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def gemm_gflops(device: torch.device, dtype: torch.dtype) -> float:
    """Rate of a large square matrix product in 1e9 floating-point operations per second, the reference for steps."""
    size = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / _fastest(lambda: a @ b, device) / 1e9


def copied_gbytes(device: torch.device) -> float:
    """Rate at which a large copy reads and writes memory, in 1e9 bytes per second, read and written ones."""
    source = torch.zeros(2**26 if device.type == "cpu" else 2**31, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / _fastest(lambda: target.copy_(source), device) / 1e9


def _fastest(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of a few runs after a first one."""
    seconds = []
    for _ in range(4):
        synchronise(device)
        started = time.perf_counter()
        run()
        synchronise(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def peak_memory_bytes(device: torch.device) -> int:
    """Peak resident memory of this process (CPU), or peak allocated memory of the GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
