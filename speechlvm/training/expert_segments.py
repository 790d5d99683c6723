"""What experts know of training segments, each with the past that it has in its utterance."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from speechlvm.data.dumps.dataset import Segment
from speechlvm.data.dumps.dump import Dump
from speechlvm.models.experts import KNOWN, of_utterance

KEPT_BYTES = 2 << 30
"""A training set that takes no more is gone through once, and kept in memory."""
LEAD_FRAMES = 4096
"""Past of a segment of a larger set: five times what the slowest filters remember."""


class ExpertSegments:
    """Called with segments of a dump, gives `of_utterance` (frames, .) of each; rows are computed in parallel.

    Whether utterances are gone through whole depends on the size of the dump alone, so that a resumed run computes the
    same numbers. Processes that read ahead (`data.workers`) keep nothing from one epoch to the next.

    Args:
        dump: of the training set.
    """

    def __init__(self, dump: Dump) -> None:
        self._dump = dump
        self._keeps = dump.frames * (KNOWN + 1) * np.dtype(np.float32).itemsize <= KEPT_BYTES
        self._kept: dict[str, np.ndarray] = {}

    def __call__(self, segments: Sequence[Segment]) -> list[np.ndarray]:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return list(pool.map(self._of_segment, segments))

    def _of_segment(self, segment: Segment) -> np.ndarray:
        stop = segment.start + segment.frames
        if not self._keeps:
            first = max(0, segment.start - LEAD_FRAMES)
            return of_utterance(self._dump.read(segment.utterance, first, stop))[segment.start - first :]
        if segment.utterance not in self._kept:
            whole = self._dump.read(segment.utterance, 0, self._dump.records[segment.utterance].frames)
            self._kept[segment.utterance] = of_utterance(whole)
        return self._kept[segment.utterance][segment.start : stop]
