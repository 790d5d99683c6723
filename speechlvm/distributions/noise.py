"""Keyed, counter-based noise: each number depends only on (seed, epoch, utterance, ..., stream, position).

Every row of a batch has a key (a tuple of integers and strings). A stream of that row is Philox with a key hashed from
(row key, stream name) and the position of the element as counter, so numbers do not depend on the composition of
batches, on chunks, or on the number of jobs or processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_WORDS_PER_BLOCK = 4  # Philox4x64 yields four 64-bit words per counter value
_STEPS_AHEAD = 64


def _uniform_words(key: tuple, stream: str, start: int, count: int) -> np.ndarray:
    digest = hashlib.blake2b(repr((*key, stream)).encode(), digest_size=16).digest()
    block, skip = divmod(start, _WORDS_PER_BLOCK)
    philox = np.random.Philox(key=int.from_bytes(digest, "little"), counter=block)
    words = philox.random_raw(skip + count)[skip:]
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # in (0, 1), never 0 or 1


class Noise:
    """Noise for the rows of a batch.

    Args:
        keys: one tuple per row, for instance (seed, epoch, utterance id, first frame of the segment).
        device: device of the tensors.
        dtype: floating-point type of the tensors.
    """

    def __init__(
        self, keys: Sequence[tuple], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self.keys = [tuple(key) for key in keys]
        self.device = torch.device(device)
        self.dtype = dtype

    def __len__(self) -> int:
        return len(self.keys)

    def select(self, rows: Sequence[int]) -> Noise:
        """The noise of some rows."""
        return Noise([self.keys[row] for row in rows], self.device, self.dtype)

    def repeat(self, samples: int) -> Noise:
        """Independent noise for `samples` copies of each row, copies of one row adjacent; copy 0 is the row itself."""
        keys = [(*key, f"sample{k}") if k else key for key in self.keys for k in range(samples)]
        return Noise(keys, self.device, self.dtype)

    def uniform(self, stream: str, start: int, steps: int, dim: int) -> Tensor:
        """Uniform numbers in (0, 1): steps start .. start + steps - 1 of a stream of `dim`-vectors, (B, steps, dim)."""
        return self._to_tensor(self._draw(stream, start, steps, dim)).clamp_(2.0**-33, 1.0 - 2.0**-24)

    def normal(self, stream: str, start: int, steps: int, dim: int) -> Tensor:
        """Standard normal numbers (B, steps, dim), by inversion, so that each takes one element of the stream."""
        uniform = torch.from_numpy(self._draw(stream, start, steps, dim))
        return torch.special.ndtri(uniform).to(device=self.device, dtype=self.dtype)

    def _draw(self, stream: str, start: int, steps: int, dim: int) -> np.ndarray:
        rows = [_uniform_words(key, stream, start * dim, steps * dim) for key in self.keys]
        return np.stack(rows).reshape(len(rows), steps, dim)

    def _to_tensor(self, array: np.ndarray) -> Tensor:
        # rounding to float32 could give 0 or 1, where quantile functions are infinite
        return torch.from_numpy(array).to(device=self.device, dtype=self.dtype)


class NoiseAhead(Noise):
    """The same numbers for callers that advance step by step: each stream is drawn many steps ahead."""

    def __init__(
        self, keys: Sequence[tuple], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(keys, device, dtype)
        self._blocks: dict[str, tuple[int, Tensor]] = {}

    def normal(self, stream: str, start: int, steps: int, dim: int) -> Tensor:
        """See `Noise.normal`."""
        first, block = self._blocks.get(stream, (start, None))
        if block is None or start < first or start + steps > first + block.shape[1]:
            first, block = start, super().normal(stream, start, max(steps, _STEPS_AHEAD), dim)
            self._blocks[stream] = first, block
        return block[:, start - first : start - first + steps]
