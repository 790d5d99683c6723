"""The processes that train one model together: one for each GPU, or on processors one for each node.

All go through the same optimiser steps: the global batches are a function of (seed, epoch), and process r of N has rows
r, r + N, ... of each. Noise is keyed by utterance and the loss is divided by the frames of all, so N processes compute
what one would, up to rounding. Gradients are reduced by DistributedDataParallel (gloo on processors, nccl on GPUs);
numbers are exchanged as tensors over gloo. Only the first process writes.

What fails on one process fails on all of them at the end of the step: there with its own error, elsewhere with its exit
status and without a word, so that it is said once. A process that vanishes is noticed by the others' next exchange.
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
from speechlvm.utils.processes import LAUNCHER, die_with

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)  # of one exchange: the others may be validating or writing to a slow disk


class PeerFailed(UserError):
    """Another process has failed, and says so itself; this one ends with the same exit status."""

    def __init__(self, exit_status: int) -> None:
        super().__init__("another process of the training has failed")
        self.exit_status = exit_status


class PeerLost(UserError):
    """Another process has vanished (killed, or its machine is gone); all can start again from the last checkpoint."""

    exit_status = 69


class OneProcess:
    """The only process of a training.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        local_rank: number of this process among those of its node; None if there are no others anywhere.
        local_size: number of processes of this node.
    """

    rank = 0
    size = 1
    local_rank: int | None = None
    local_size = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part: items rank, rank + size, ...; none if there are fewer items than processes."""
        return items[self.rank :: self.size]

    def replicate(self, model: nn.Module) -> None:
        """From here on all processes have the first one's weights, and `backward` is of this model."""

    def backward(self, loss: Callable[[], Tensor] | None, last: bool) -> None:
        """Add the gradient of this process's part of the loss; with `last`, that of all processes is in the weights.

        Args:
            loss: computes it; None if this process has no rows. What it raises is kept for `agree`.
            last: of the batches of an optimiser step.
        """
        loss().backward()

    def gather(self, values: Tensor) -> Tensor:
        """(size, ...) of each process's tensor on the CPU, all of one shape."""
        return values.unsqueeze(0)

    def agree(self, *values: float) -> list[list[float]]:
        """Each process's numbers; raises here or elsewhere what `backward` has kept."""
        return [list(values)]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What fails within on one process fails on all. There is no exchange within."""
        yield

    def of_first(self, make: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
        """Tensors and plain values that the first process makes, for all."""
        return make()

    def said_once(self, error: UserError) -> UserError:
        """What this process is to raise when all have come to the same error."""
        return error


class _Reduced(nn.Module):
    """A model as DistributedDataParallel wants it: `forward` gives the loss, and every weight is part of every graph.

    A process without rows, or whose own computation has failed, and weights that the objective does not use, would
    leave the others waiting for their gradients; zero times all weights takes part in their place.
    """

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.error: Exception | None = None

    def forward(self, loss: Callable[[], Tensor] | None) -> Tensor:
        total = 0.0 * torch.stack([weight.sum() for weight in self.model.parameters()]).sum()
        if loss is not None and self.error is None:
            try:
                return total + self.size * loss()  # gradients are averaged over processes; the loss is a sum
            except Exception as error:
                self.error = error
        return total


class ProcessGroup(OneProcess):
    """One of several processes, started by torchrun or `launch`.

    Raises:
        PeerLost: from any method, if another process has vanished.
    """

    def __init__(self, ngpu: int) -> None:
        import torch.distributed as dist

        die_with(int(os.environ.get(LAUNCHER, os.getppid())))
        with _contact():
            dist.init_process_group("cpu:gloo,cuda:nccl" if ngpu else "gloo", timeout=TIMEOUT)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.local_rank, self.local_size = (int(os.environ[name]) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
        self._reduced: _Reduced | None = None

    def replicate(self, model: nn.Module) -> None:
        """See `OneProcess`."""
        from torch.nn.parallel import DistributedDataParallel

        device = next(model.parameters()).device
        if device.type == "cuda":
            torch.cuda.set_device(device)  # of the group's own tensors
        self._reduced = _Reduced(model, self.size)
        with _contact():
            self._parallel = DistributedDataParallel(
                self._reduced,
                device_ids=None if device.type == "cpu" else [device],
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
            )
            # it lays its buckets out anew after the first step. An empty step makes that happen now, so that with three
            # or more processes sums do not depend on how many steps ago a run was resumed
            for _ in range(2):
                self.backward(None, last=True)
        for weight in model.parameters():
            weight.grad = None

    def backward(self, loss: Callable[[], Tensor] | None, last: bool) -> None:
        """See `OneProcess`."""
        with _contact(), contextlib.nullcontext() if last else self._parallel.no_sync():
            self._parallel(loss).backward()

    def gather(self, values: Tensor) -> Tensor:
        """See `OneProcess`."""
        import torch.distributed as dist

        all_values = [torch.empty_like(values) for _ in range(self.size)]
        with _contact():
            dist.all_gather(all_values, values)
        return torch.stack(all_values)

    def agree(self, *values: float) -> list[list[float]]:
        """See `OneProcess`."""
        return self._agree(self._reduced and self._reduced.error, *values)

    def _agree(self, error: BaseException | None, *values: float) -> list[list[float]]:
        status = 0 if error is None else getattr(error, "exit_status", 1)
        everyone = self.gather(torch.tensor([status, *values], dtype=torch.float64)).tolist()
        failed = [(rank, int(row[0])) for rank, row in enumerate(everyone) if row[0]]
        if failed:
            rank, status = failed[0]
            raise error if rank == self.rank else PeerFailed(status)
        return [row[1:] for row in everyone]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """See `OneProcess`."""
        error = None
        try:
            yield
        except Exception as failure:
            error = failure
        self._agree(error)

    def of_first(self, make: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
        """See `OneProcess`."""
        import torch.distributed as dist

        stream = io.BytesIO()
        with self.together():
            content = make() if self.first else None
            if content is not None:
                torch.save(content, stream)
        size = torch.tensor([stream.tell()])
        with _contact():
            dist.broadcast(size, 0)
            payload = torch.frombuffer(stream.getbuffer(), dtype=torch.uint8) if size and self.first else None
            payload = torch.empty(int(size), dtype=torch.uint8) if payload is None else payload
            if size:
                dist.broadcast(payload, 0)
        if self.first or not size:
            return content
        return torch.load(io.BytesIO(payload.numpy().tobytes()), map_location="cpu", weights_only=True)

    def said_once(self, error: UserError) -> UserError:
        """See `OneProcess`."""
        return error if self.first else PeerFailed(error.exit_status)


@contextlib.contextmanager
def _contact() -> Iterator[None]:
    """Errors of an exchange mean that another process is gone."""
    from torch.distributed import DistError

    try:
        yield
    except RuntimeError as error:
        if isinstance(error, DistError) or "gloo" in str(error):  # gloo's have no type of their own
            raise PeerLost(f"lost contact with another process of the training: {error}") from error
        raise
