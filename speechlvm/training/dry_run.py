"""What does not fit into memory is found before the first step, and not after hours of training.

The largest batch of an epoch goes forwards and backwards once, beside as much memory as the optimiser's state takes;
before it, ever longer beginnings of its rows. Weights, optimiser and random numbers stay as they are, and so does
training, to the last bit; the cost is about two steps. The same is done for scoring the validation set.

On a CPU the kernel would end a process that has taken too much, so there a beginning is only tried if twice what the
one of half its length took is available, in the machine and in the control groups that a scheduler makes.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from speechlvm.data.dumps.dataset import Batch, DataSettings, Segment, consecutive_batches, read_batch
from speechlvm.data.dumps.dump import Dump
from speechlvm.scoring.score import most_frames
from speechlvm.training.benchmarking import peak_memory_bytes, reset_peak_memory
from speechlvm.utils.errors import UserError

PARTS = (16, 8, 4, 2, 1)
_REFUSALS = ("can't allocate memory", "not enough memory", "bad_alloc", "out of memory", "alloc_failed")
log = logging.getLogger(__name__)


class Shortage(Exception):
    """Memory is too small; the argument says how much would be needed, as far as that can be told."""


def check_step_fits(
    backward: Callable[[Batch], object],
    optimizer: torch.optim.Optimizer,
    dump: Dump,
    batches: Sequence[Sequence[Segment]],
    settings: DataSettings,
    sharing: int = 1,
) -> None:
    """Try the largest of an epoch's batches.

    Args:
        backward: takes a batch forwards and backwards, as a step does; gradients are thrown away.
        optimizer: of the weights; its state is set aside if it has none yet.
        dump: of the training set.
        batches: of the epoch, as this process sees them.
        settings: that they were cut by.
        sharing: processes that share this machine's memory (not that of a GPU).

    Raises:
        UserError: memory is too small; the batch, what it needs, what is available and what to do are named.
    """
    largest = max(batches, key=padded_frames)
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    device = weights[0].device
    moments = 0 if optimizer.state else 2

    def run(segments: Sequence[Segment]) -> None:
        aside = [torch.ones_like(weight) for weight in weights for _ in range(moments)]
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                backward(read_batch(dump, segments))
        finally:
            optimizer.zero_grad(set_to_none=True)
            aside.clear()

    started = time.monotonic()
    fixed = (1 + moments) * sum(weight.numel() * weight.element_size() for weight in weights)
    try:
        taken, available = _grow(run, largest, fixed, device, sharing)
    except Shortage as shortage:
        bound = settings.row_frames
        row = f"--data.segment_frames (now {bound})" if settings.segment_frames else f"--max_frames (now {bound})"
        raise UserError(
            f"{describe(largest)}: the largest batch of the epoch needs {shortage} of memory, "
            f"{_gb(available_bytes(device, sharing))} are available; lower --data.batch_frames "
            f"(now {settings.batch_frames}) or {row}"
        ) from None
    log.info(
        "largest batch (%s): %s of memory, %s available; tried in %.1f s",
        describe(largest), _gb(taken), _gb(available), time.monotonic() - started,
    )  # fmt: skip


def check_scoring_fits(
    score: Callable[[Batch], object],
    dump: Dump,
    utterances: Sequence[str],
    device: torch.device,
    max_frames: int | None,
    sharing: int = 1,
) -> None:
    """Try the largest batch of the validation set.

    Args:
        score: scores a batch; the result is thrown away.
        dump: of the validation set.
        utterances: of it, as this process sees them.
        device: of the model.
        max_frames: as of `score_dump`.
        sharing: processes that share this machine's memory (not that of a GPU).

    Raises:
        UserError: memory is too small; as in `check_step_fits`.
    """
    most = most_frames(dump, max_frames)
    largest = consecutive_batches({u: min(most, dump.records[u].frames) for u in utterances}, most)[0]
    try:
        _grow(lambda segments: score(read_batch(dump, segments)), largest, 0, device, sharing)
    except Shortage as shortage:
        raise UserError(
            f"{describe(largest)}: scoring the validation set needs {shortage} of memory, "
            f"{_gb(available_bytes(device, sharing))} are available; lower --max_frames (now {most})"
        ) from None


def padded_frames(batch: Sequence[Segment]) -> int:
    """Frames of a batch, padding included."""
    return len(batch) * max(segment.frames for segment in batch)


def describe(batch: Sequence[Segment]) -> str:
    """Its longest utterances, and its size."""
    names = [segment.utterance for segment in sorted(batch, key=lambda s: (-s.frames, s.utterance))]
    longest = max(segment.frames for segment in batch)
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}: {len(batch)} x {longest} frames"


def available_bytes(device: torch.device, sharing: int = 1) -> int | None:
    """Memory that this process can still take; None where that cannot be found out."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    try:
        table = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(table["MemAvailable"].split()[0]) * 1024
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except (OSError, KeyError, ValueError):
        return None
    return min([free, *_left_in_groups(groups)]) // sharing


def _left_in_groups(lines: Sequence[str], root: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """Bytes left in each control group of /proc/self/cgroup and in those around it, of version 1 or 2."""
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top, limit, usage, cache = (
            (root, "memory.max", "memory.current", ("inactive_file", "active_file", "slab_reclaimable"))
            if not controllers
            else (
                root / "memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                ("total_inactive_file", "total_active_file"),
            )
        )
        inner = top / path.lstrip("/")
        for group in (inner, *inner.parents):
            with contextlib.suppress(OSError, ValueError, KeyError):  # "max", or a group that is not shown here
                most, used = int((group / limit).read_text()), int((group / usage).read_text())
                statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                yield max(0, most - used + sum(int(statistics.get(kind, 0)) for kind in cache))
            if group == top:
                break


@contextlib.contextmanager
def _shortages() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error).lower() for words in _REFUSALS):
            raise
        refused = True
        error.__traceback__ = None  # it holds on to what the trial has made
    else:
        refused = False
    if refused:
        raise Shortage


def _grow(
    run: Callable[[Sequence[Segment]], None],
    largest: Sequence[Segment],
    fixed: int,
    device: torch.device,
    sharing: int,
) -> tuple[int, int | None]:
    """Bytes that a batch takes at its peak, `fixed` of them whatever its length, and that were available before it.

    Raises:
        Shortage: it does not fit, or would not.
    """
    needed = "far more"
    for part in PARTS:
        rows = [Segment(s.utterance, s.start, max(1, s.frames // part)) for s in largest]
        _give_back()
        available = available_bytes(device, sharing)
        reset_peak_memory(device)
        before = peak_memory_bytes(device)
        try:
            with _shortages():
                run(rows)
        except Shortage:
            raise Shortage(needed) from None
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()
        taken = max(0, peak_memory_bytes(device) - before)
        variable = max(0, taken - fixed)
        needed = f"about {_gb(fixed + variable * part)}"
        if part > 1 and available is not None and fixed + 2 * variable > available:
            raise Shortage(needed)
    return taken, available


def _give_back() -> None:
    """Return to the system what an earlier trial took: it counts as used otherwise, and this trial as less."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # there is none but with the GNU library
        ctypes.CDLL(None).malloc_trim(0)


def _gb(number: int | None) -> str:
    return "unknown" if number is None else f"{number / 1e9:.2f} GB"
