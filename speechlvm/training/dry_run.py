"""Tries the largest batch before training, so that running out of memory shows at once and not after hours.

Weights, optimiser, random numbers and gradients are left as they were: training computes the same bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch

from speechlvm.data.dumps.dataset import Batch, DataSettings, Segment, read_batch
from speechlvm.data.dumps.dump import Dump
from speechlvm.utils.errors import UserError


def check_step_fits(
    backward: Callable[[Batch], object],
    optimizer: torch.optim.Optimizer,
    dump: Dump,
    batches: Sequence[Sequence[Segment]],
    settings: DataSettings,
) -> None:
    """Take the largest of an epoch's batches forwards and backwards, beside the optimiser's two moments.

    Args:
        backward: computes the gradients of a batch, as a step does; they are thrown away.
        optimizer: of the weights.
        dump: of the training set.
        batches: of the epoch, as this process sees them.
        settings: that they were made by.

    Raises:
        UserError: out of memory; names the batch and the settings to lower.
    """
    largest = max(batches, key=lambda batch: len(batch) * _longest(batch))
    names = [segment.utterance for segment in sorted(largest, key=lambda segment: -segment.frames)]
    shown = f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}: {len(names)} x {_longest(largest)} frames"
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    cuda = [weights[0].device] if weights[0].is_cuda else []
    row = "--data.segment_frames" if settings.segment_frames else "--max_frames"
    remedy = f"--data.batch_frames (now {settings.batch_frames}) or {row} (now {settings.row_frames})"
    with memory_errors(f"the largest batch of the epoch ({shown})", remedy), torch.random.fork_rng(cuda):
        moments = [] if optimizer.state else [torch.ones_like(weight) for weight in weights for _ in range(2)]
        backward(read_batch(dump, largest))
        del moments
    optimizer.zero_grad(set_to_none=True)


@contextlib.contextmanager
def memory_errors(what: str, remedy: str) -> Iterator[None]:
    """Running out of memory within becomes a `UserError`: `what` does not fit, lower the settings `remedy`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not of_memory and not any(words in str(error) for words in ("not enough memory", "can't allocate memory")):
            raise
        raise UserError(f"{what} does not fit in memory; lower {remedy}") from error


def _longest(batch: Sequence[Segment]) -> int:
    return max(segment.frames for segment in batch)
