"""Keyed, counter-based noise: each number depends only on (seed, epoch, utterance, ..., stream, position).

Every row of a batch has a key (a tuple of integers and strings). A stream of that row is Philox with a key hashed from
(row key, stream name) and the position of the element as counter, so numbers do not depend on the composition of
batches, on chunks, or on the number of jobs or processes. For models on the CPU, numpy draws; on other devices the same
words are computed there, so that nothing is copied or waited for. There, normal numbers in float32 differ by rounding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from speechlvm.utils.devices import to_device

_WORDS_PER_BLOCK = 4  # Philox4x64 yields four 64-bit words per counter value
_ROUNDS = 10
_MULTIPLIERS = 0xCA5A826395121157, 0xD2E7470EE14C6C93
_KEY_INCREMENTS = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
_LOW = 0xFFFFFFFF
_STEPS_AHEAD = 64


def philox(keys: Tensor, start: int, count: int) -> Tensor:
    """Words start .. start + count - 1 of the streams of some keys: bit by bit those of `numpy.random.Philox`.

    int64 stands for unsigned integers: sums and products wrap, and bits that a shift to the right copies from the sign
    are masked out.

    Args:
        keys: (B, 2) int64; the result is on their device.
        start, count: the words.

    Returns:
        (B, count) int64.
    """
    block, skip = divmod(start, _WORDS_PER_BLOCK)
    blocks = -(-(skip + count) // _WORDS_PER_BLOCK)
    constants = np.array([_MULTIPLIERS, _KEY_INCREMENTS], np.uint64).view(np.int64)
    multiplier, increment = to_device(torch.from_numpy(constants), keys.device).view(2, 2, 1, 1)
    key = keys.t().unsqueeze(-1)
    low, high = multiplier & _LOW, multiplier >> 32 & _LOW
    even = torch.zeros(2, len(keys), blocks, dtype=torch.int64, device=keys.device)  # words 0 and 2 of each block
    odd = torch.zeros_like(even)  # words 1 and 3
    even[0] = torch.arange(block + 1, block + 1 + blocks, device=keys.device)
    for number in range(_ROUNDS):
        x = even.flip(0)
        x_low, x_high = x & _LOW, x >> 32 & _LOW
        # x times multiplier: its upper half by long multiplication of 32 bits at a time
        middle = torch.addcmul(x_low * low >> 32 & _LOW, x_high, low)
        upper = torch.addcmul(middle >> 32 & _LOW, x_high, high)
        upper += torch.addcmul(middle & _LOW, x_low, high) >> 32 & _LOW
        even, odd = upper ^ odd ^ torch.add(key, increment, alpha=number), x * multiplier
    words = torch.stack([even, odd], 1).flatten(0, 1).permute(1, 2, 0).reshape(len(keys), -1)
    return words[:, skip : skip + count]


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
        # rounding to float32 could give 0 or 1, where quantile functions are infinite
        return self._draw(stream, start, steps, dim).to(self.dtype).clamp_(2.0**-33, 1.0 - 2.0**-24)

    def normal(self, stream: str, start: int, steps: int, dim: int) -> Tensor:
        """Standard normal numbers (B, steps, dim), by inversion, so that each takes one element of the stream."""
        return torch.special.ndtri(self._draw(stream, start, steps, dim)).to(self.dtype)

    def _draw(self, stream: str, start: int, steps: int, dim: int) -> Tensor:
        """Uniform numbers, float64."""
        digests = [hashlib.blake2b(repr((*key, stream)).encode(), digest_size=16).digest() for key in self.keys]
        if self.device.type == "cpu":
            words = np.stack([_words(digest, start * dim, steps * dim) for digest in digests])
            uniform = torch.from_numpy(((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)
        else:
            keys = torch.from_numpy(np.frombuffer(b"".join(digests), "<i8").reshape(-1, 2).copy())
            words = philox(to_device(keys, self.device), start * dim, steps * dim)
            uniform = (words >> 11 & 2**53 - 1).double().add_(0.5).mul_(2.0**-53)
        return uniform.view(len(digests), steps, dim)


def _words(digest: bytes, start: int, count: int) -> np.ndarray:
    """Words start .. start + count - 1 of the stream of a key."""
    block, skip = divmod(start, _WORDS_PER_BLOCK)
    philox = np.random.Philox(key=int.from_bytes(digest, "little"), counter=block)
    return philox.random_raw(skip + count)[skip:]


class NoiseAhead(Noise):
    """The same numbers for callers that advance step by step: each stream is drawn many steps ahead."""

    def __init__(
        self, keys: Sequence[tuple], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(keys, device, dtype)
        self._blocks: dict[tuple, tuple[int, Tensor]] = {}

    def uniform(self, stream: str, start: int, steps: int, dim: int) -> Tensor:
        """See `Noise.uniform`."""
        return self._ahead(super().uniform, stream, start, steps, dim)

    def normal(self, stream: str, start: int, steps: int, dim: int) -> Tensor:
        """See `Noise.normal`."""
        return self._ahead(super().normal, stream, start, steps, dim)

    def _ahead(self, draw: Callable[..., Tensor], stream: str, start: int, steps: int, dim: int) -> Tensor:
        name = draw.__name__, stream
        first, block = self._blocks.get(name, (start, None))
        if block is None or start < first or start + steps > first + block.shape[1]:
            first, block = start, draw(stream, start, max(steps, _STEPS_AHEAD), dim)
            self._blocks[name] = first, block
        return block[:, start - first : start - first + steps]
