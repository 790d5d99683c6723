"""Parts of benchmarks: an optimiser step of the trainer, the machine's GEMM rate, peak memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
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

    `foreach`: update all weights in one operation, as on GPUs; None: torch's default for this device.
    """
    device = next(model.parameters()).device
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, foreach=foreach)

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

    known = {
        torch.ops.aten.addmm_: product,
        torch.ops.mkldnn._linear_pointwise: packed,
        torch.ops.aten.mkldnn_rnn_layer: recurrent,
        torch.ops.aten.mkldnn_rnn_layer_backward: recurrent_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        run()
    return counter.get_total_flops() / 1e9


def operations(run: Callable[[], None]) -> int:
    """Number of tensor operations of one run, without views: about the number of kernels launched on a GPU."""
    with _Operations() as counter:
        run()
    return counter.count


class _Operations(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def gemm_gflops(device: torch.device, dtype: torch.dtype, size: int = 2048) -> float:
    """Rate of a square matrix product in 1e9 floating-point operations per second, the reference for steps."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    rates = []
    for _ in range(4):
        started = time.perf_counter()
        a @ b
        synchronise(device)
        rates.append(2 * size**3 / (time.perf_counter() - started) / 1e9)
    return max(rates[1:])


def peak_memory_bytes(device: torch.device) -> int:
    """Peak resident memory of this process (CPU), or peak allocated memory of the GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
