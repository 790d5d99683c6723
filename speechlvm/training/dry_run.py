"""Tries the largest batch before training, so that running out of memory shows at once instead of after hours.

Weights, optimiser, random numbers and gradients are not changed: training is bit-identical.
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
    """Run forward and backward on the largest batch of an epoch, with memory allocated for the two moments of Adam.

    Args:
        backward: computes the gradients of a batch, as in a step; they are discarded.
        optimizer: optimiser of the weights.
        dump: dump of the training set.
        batches: batches of the epoch, the rows of this process.
        settings: settings that the batches were made with.

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
    """Convert out-of-memory errors to `UserError`: `what` does not fit, lower the settings `remedy`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not of_memory and not any(words in str(error) for words in ("not enough memory", "can't allocate memory")):
            raise
        raise UserError(f"{what} does not fit in memory; lower {remedy}") from error


def _longest(batch: Sequence[Segment]) -> int:
    return max(segment.frames for segment in batch)
