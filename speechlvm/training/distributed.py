"""Data-parallel training: one process per GPU, or on CPUs one per node.

All processes take the same optimiser steps: the global batches are a function of (seed, epoch), and rank r of N has
rows r, r + N, ... of each. Noise is keyed by utterance and the loss is divided by the frames of all ranks, so N
processes compute the same as one, up to rounding. Gradients are reduced by DistributedDataParallel in a group of their
own (gloo on CPUs, nccl on GPUs); all else is exchanged as tensors on the CPU over gloo. Only rank 0 writes files.

An error on one rank is raised on all ranks at the end of the step: unchanged there, and as a silent `PeerFailed` with
the same exit status elsewhere, so that it is reported once. Lost processes are noticed at the next exchange.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from speechlvm.utils.errors import UserError

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)  # per exchange: other ranks may be validating or writing to a slow disk
# Gradients are exchanged within a step, which all ranks have begun together. gloo notices that a process is gone; nccl
# does not always, and then ends the processes that wait for it.
GRADIENT_TIMEOUT = timedelta(minutes=10)


class PeerFailed(UserError):
    """Another process has failed and reports the reason; this one exits with the same status."""

    def __init__(self, exit_status: int) -> None:
        super().__init__("another process of the training has failed")
        self.exit_status = exit_status


class PeerLost(UserError):
    """Another process was lost (killed, or its machine is down); training can resume from the last checkpoint."""

    exit_status = 69


class OneProcess:
    """The only process of a training run.

    Attributes:
        rank: rank of this process, from 0.
        size: number of processes.
        local_rank: rank of this process on its node; None if it is the only process.
    """

    rank = 0
    size = 1
    local_rank: int | None = None

    @property
    def is_rank0(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """Items rank, rank + size, ...: those of this process, possibly none."""
        return items[self.rank :: self.size]

    def replicate(self, model: nn.Module) -> None:
        """Copy the weights of rank 0 to all ranks; `backward` then computes gradients of this model."""

    def backward(self, loss: Callable[[], Tensor] | None, last: bool) -> None:
        """Accumulate the gradients of this process's part of the loss; with `last`, sum them over all processes.

        Args:
            loss: computes the loss; None if this process has no rows. Its exceptions are kept for `all_gather`.
            last: whether this is the last batch of an optimiser step.
        """
        loss().backward()

    def all_gather_tensor(self, values: Tensor) -> Tensor:
        """Gather tensors of the same shape on the CPU from all processes: (size, ...)."""
        return values.unsqueeze(0)

    def all_gather(self, *values: float, error: Exception | None = None) -> list[list[float]]:
        """Gather numbers from all processes; raises on all of them the error of one, given or kept by `backward`."""
        if error is not None:
            raise error
        return [list(values)]

    @contextlib.contextmanager
    def raise_on_all(self) -> Iterator[None]:
        """Raise an exception of one process on all of them. The block must not communicate itself."""
        yield

    def broadcast_from_rank0(self, make: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
        """Tensors and plain values that `make` returns on rank 0."""
        return make()

    def log_once(self, error: UserError) -> UserError:
        """The exception to raise for an error found by all processes: the error on rank 0, else `PeerFailed`."""
        return error


class _OfAllWeights(torch.autograd.Function):
    """The loss, as if it depended on all weights; the gradients added to theirs are undefined, which costs nothing."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, *weights: Tensor) -> Tensor:
        ctx.weights = len(weights)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return gradient, *[None] * ctx.weights


class _LossModule(nn.Module):
    """A model for DistributedDataParallel: `forward` returns the loss, and every graph contains all weights.

    If a process has no rows, its loss fails, or the objective does not use some weights, the others would otherwise
    wait for gradients.
    """

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.error: Exception | None = None

    def forward(self, loss: Callable[[], Tensor] | None) -> Tensor:
        weights = tuple(self.model.parameters())
        total = weights[0].new_zeros(())
        if loss is not None and self.error is None:
            try:
                total = self.size * loss()  # gradients are averaged over processes; the loss is a sum
            except Exception as error:
                self.error = error
        return _OfAllWeights.apply(total, *weights)


class ProcessGroup(OneProcess):
    """One of several processes, started by torchrun.

    Raises:
        PeerLost: from any method, if another process was lost.
    """

    def __init__(self) -> None:
        import torch.distributed as dist

        with _peer_errors():
            dist.init_process_group("gloo", timeout=TIMEOUT)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.local_rank = int(os.environ["LOCAL_RANK"])
        self._module: _LossModule | None = None

    def replicate(self, model: nn.Module) -> None:
        """See `OneProcess`."""
        import torch.distributed as dist
        from torch.nn.parallel import DistributedDataParallel

        device = next(model.parameters()).device
        if device.type == "cuda":
            torch.cuda.set_device(device)  # for nccl's own tensors
        self._module = _LossModule(model, self.size)
        with _peer_errors():
            backend = "nccl" if device.type == "cuda" else "gloo"
            self._parallel = DistributedDataParallel(
                self._module,  # without device_ids: all that it is given is on its device
                process_group=dist.new_group(backend=backend, timeout=GRADIENT_TIMEOUT),
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
            )
            # DDP rebuilds its buckets after the first step. An empty step does this now, so that with three or more
            # processes sums do not depend on when a run was resumed.
            for _ in range(2):
                self.backward(None, last=True)
        for weight in model.parameters():
            weight.grad = None

    def backward(self, loss: Callable[[], Tensor] | None, last: bool) -> None:
        """See `OneProcess`."""
        with _peer_errors(), contextlib.nullcontext() if last else self._parallel.no_sync():
            self._parallel(loss).backward()

    def all_gather_tensor(self, values: Tensor) -> Tensor:
        """See `OneProcess`."""
        import torch.distributed as dist

        all_values = [torch.empty_like(values) for _ in range(self.size)]
        with _peer_errors():
            dist.all_gather(all_values, values)
        return torch.stack(all_values)

    def all_gather(self, *values: float, error: Exception | None = None) -> list[list[float]]:
        """See `OneProcess`."""
        return self._all_gather(self._module and self._module.error or error, *values)

    def _all_gather(self, error: BaseException | None, *values: float) -> list[list[float]]:
        status = 0 if error is None else getattr(error, "exit_status", 1)
        rows = self.all_gather_tensor(torch.tensor([status, *values], dtype=torch.float64)).tolist()
        failed = [(rank, int(row[0])) for rank, row in enumerate(rows) if row[0]]
        if failed:
            rank, status = failed[0]
            raise error if rank == self.rank else PeerFailed(status)
        return [row[1:] for row in rows]

    @contextlib.contextmanager
    def raise_on_all(self) -> Iterator[None]:
        """See `OneProcess`."""
        error = None
        try:
            yield
        except Exception as failure:
            error = failure
        self._all_gather(error)

    def broadcast_from_rank0(self, make: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
        """See `OneProcess`."""
        import torch.distributed as dist

        stream = io.BytesIO()
        with self.raise_on_all():
            content = make() if self.is_rank0 else None
            if content is not None:
                torch.save(content, stream)
        size = torch.tensor([stream.tell()])
        with _peer_errors():
            dist.broadcast(size, 0)
            payload = torch.frombuffer(stream.getbuffer(), dtype=torch.uint8) if size and self.is_rank0 else None
            payload = torch.empty(int(size), dtype=torch.uint8) if payload is None else payload
            if size:
                dist.broadcast(payload, 0)
        if self.is_rank0 or not size:
            return content
        return torch.load(io.BytesIO(payload.numpy().tobytes()), map_location="cpu", weights_only=True)

    def log_once(self, error: UserError) -> UserError:
        """See `OneProcess`."""
        return error if self.is_rank0 else PeerFailed(error.exit_status)


@contextlib.contextmanager
def _peer_errors() -> Iterator[None]:
    """Convert errors of an exchange to `PeerLost`."""
    from torch.distributed import DistError

    try:
        yield
    except RuntimeError as error:
        if isinstance(error, DistError) or "gloo" in str(error):  # gloo raises plain RuntimeError
            raise PeerLost(f"lost contact with another process of the training: {error}") from error
        raise
