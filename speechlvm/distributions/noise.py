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


def philox(keys: Tensor, counters: Tensor) -> Tensor:
    """Blocks of Philox4x64, bit by bit those of `numpy.random.Philox`.

    int64 stands for unsigned integers: sums and products wrap, and the bits that a shift to the right copies from the
    sign are masked out.

    Args:
        keys: (N, 2) int64.
        counters: (N,) int64 on the same device; numpy increments its counter before each block.

    Returns:
        (N, 4) int64.
    """
    constants = np.array([_MULTIPLIERS, _KEY_INCREMENTS], np.uint64).view(np.int64)
    multiplier, increment = to_device(torch.from_numpy(constants), keys.device).unsqueeze(-1)
    low, high = multiplier & _LOW, multiplier >> 32 & _LOW
    even = torch.stack([counters, torch.zeros_like(counters)])  # words 0 and 2 of each block
    odd = torch.zeros_like(even)  # words 1 and 3
    keys = keys.t()
    for number in range(_ROUNDS):
        x = even.flip(0)
        x_low, x_high = x & _LOW, x >> 32 & _LOW
        # x times multiplier: its upper half by long multiplication of 32 bits at a time
        middle = torch.addcmul(x_low * low >> 32 & _LOW, x_high, low)
        upper = torch.addcmul(middle >> 32 & _LOW, x_high, high)
        upper += torch.addcmul(middle & _LOW, x_low, high) >> 32 & _LOW
        even, odd = upper ^ odd ^ torch.add(keys, increment, alpha=number), x * multiplier
    return torch.stack([even, odd], 1).flatten(0, 1).t()


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
        self._wanted: dict[str, tuple[int, int, int]] = {}
        self._drawn: dict[str, Tensor] = {}

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
        return self._draw([(stream, start, steps, dim)])[0].to(self.dtype).clamp_(2.0**-33, 1.0 - 2.0**-24)

    def normal(self, stream: str, start: int, steps: int, dim: int) -> Tensor:
        """Standard normal numbers (B, steps, dim), by inversion, so that each takes one element of the stream."""
        return self._normals({stream: (start, steps, dim)})[stream]

    def normals(self, wanted: dict[str, tuple[int, int, int]]) -> dict[str, Tensor]:
        """`normal` of streams, by their arguments; kept for those who ask for the same again to take another of them.

        A device takes as long to draw from one stream as from all: there are hundreds of operations, and all are short.
        """
        if self._wanted != wanted:
            self._wanted, self._drawn = wanted, self._normals(wanted)
        return self._drawn

    def _normals(self, wanted: dict[str, tuple[int, int, int]]) -> dict[str, Tensor]:
        places = [(stream, *place) for stream, place in wanted.items()]
        drawn = (torch.special.ndtri(uniform).to(self.dtype) for uniform in self._draw(places))
        return dict(zip(wanted, drawn, strict=True))

    def _draw(self, places: Sequence[tuple[str, int, int, int]]) -> list[Tensor]:
        """Uniform numbers, float64, for each (stream, start, steps, dim)."""
        digests = [[_digest((*key, stream)) for key in self.keys] for stream, *_ in places]
        if self.device.type == "cpu":
            drawn = []
            for of_rows, (_, start, steps, dim) in zip(digests, places, strict=True):
                words = np.stack([_words(digest, start * dim, steps * dim) for digest in of_rows])
                uniform = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
                drawn.append(torch.from_numpy(uniform).view(len(of_rows), steps, dim))
            return drawn
        bits = np.frombuffer(b"".join(b"".join(of_rows) for of_rows in digests), "<i8").copy()
        keys, counters, sizes = to_device(torch.from_numpy(bits), self.device).view(len(places), -1, 2), [], []
        for _, start, steps, dim in places:
            first, last = start * dim // _WORDS_PER_BLOCK, (start + steps) * dim - 1
            blocks = torch.arange(first + 1, last // _WORDS_PER_BLOCK + 2, device=self.device)
            sizes.append(len(blocks))
            counters.append(blocks.repeat(len(self.keys)))
        of_blocks = [own[:, None].expand(-1, size, -1).flatten(0, 1) for own, size in zip(keys, sizes, strict=True)]
        words = philox(torch.cat(of_blocks), torch.cat(counters))
        uniform = (words >> 11 & 2**53 - 1).double().add_(0.5).mul_(2.0**-53)
        drawn = []
        for part, (_, start, steps, dim) in zip(uniform.split([len(c) for c in counters]), places, strict=True):
            skip = start * dim % _WORDS_PER_BLOCK
            rows = part.reshape(len(self.keys), -1)[:, skip : skip + steps * dim]
            drawn.append(rows.reshape(len(self.keys), steps, dim))
        return drawn


def _digest(key: tuple) -> bytes:
    return hashlib.blake2b(repr(key).encode(), digest_size=16).digest()


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

    def normals(self, wanted: dict[str, tuple[int, int, int]]) -> dict[str, Tensor]:
        """See `Noise.normals`."""
        return {stream: self.normal(stream, *place) for stream, place in wanted.items()}

    def _ahead(self, draw: Callable[..., Tensor], stream: str, start: int, steps: int, dim: int) -> Tensor:
        name = draw.__name__, stream
        first, block = self._blocks.get(name, (start, None))
        if block is None or start < first or start + steps > first + block.shape[1]:
            first, block = start, draw(stream, start, max(steps, _STEPS_AHEAD), dim)
            self._blocks[name] = first, block
        return block[:, start - first : start - first + steps]
