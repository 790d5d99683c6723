"""Range asymmetric numeral systems (Duda 2013, arXiv:1311.2540): many stacks side by side, in numpy.

A symbol with the interval [start, start + f) of 2^P takes P - log2 f bits. What was pushed last is popped first, and
popping is the exact inverse of pushing, so that bits can also be popped that nobody pushed (bits back).

    stack     words of 32 bits, the last one on top, below a head in [2^32, 2^64)
    push      head >= f 2^(64 - P): its lower half becomes a word; then head <- (head // f) 2^P + head % f + start
    pop       head mod 2^P lies in the interval of the symbol; the same backwards
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

LEAST_HEAD = 1 << 32
_HEAD_BYTES, _WORD_BYTES = 8, 4
_32, _64 = np.uint64(32), np.uint64(64)


def pack(head: np.uint64, words: np.ndarray) -> bytes:
    """A stack as a stream."""
    return int(head).to_bytes(_HEAD_BYTES, "little") + words.astype("<u4").tobytes()


def parse(stream: bytes) -> tuple[np.uint64, np.ndarray]:
    """Inverse of `pack`.

    Raises:
        ValueError: a stream that `pack` cannot give.
    """
    if len(stream) < _HEAD_BYTES or len(stream) % _WORD_BYTES:
        raise ValueError(f"{len(stream)} bytes are no stack")
    head = np.uint64(int.from_bytes(stream[:_HEAD_BYTES], "little"))
    if head < LEAST_HEAD:
        raise ValueError("a head is below 2^32")
    return head, np.frombuffer(stream, "<u4", offset=_HEAD_BYTES).astype(np.uint32)


class Stacks:
    """N stacks. Operations take distinct stacks (n,), and for each of them a symbol's start and frequency (n,) uint64.

    Args:
        heads: (N,) uint64.
        words: of each stack, uint32, the top one last.
        supply: stacks (n,) that are empty -> a word (n,) for each; None: zeros, which only a damaged stream needs.
    """

    def __init__(
        self,
        heads: np.ndarray,
        words: Sequence[np.ndarray],
        supply: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.heads = heads.astype(np.uint64)
        self._counts = np.array([len(of_stack) for of_stack in words], dtype=np.int64)
        self._words = np.zeros((len(words), max(64, self._counts.max(initial=0))), dtype=np.uint32)
        for row, of_stack in zip(self._words, words, strict=True):
            row[: len(of_stack)] = of_stack
        self._supply = supply

    @staticmethod
    def empty(count: int) -> Stacks:
        """Stacks that nothing has been pushed on."""
        return Stacks(np.full(count, LEAST_HEAD, np.uint64), [np.empty(0, np.uint32)] * count)

    @staticmethod
    def of_bytes(streams: Sequence[bytes]) -> Stacks:
        """Inverse of `to_bytes` of each stack.

        Raises:
            ValueError: a stream that `to_bytes` cannot give.
        """
        heads, words = zip(*map(parse, streams), strict=True)
        return Stacks(np.array(heads), words)

    def to_bytes(self, stack: int) -> bytes:
        """Head and words of one stack."""
        return pack(self.heads[stack], self._words[stack, : self._counts[stack]])

    def push(self, stacks: np.ndarray, start: np.ndarray, frequency: np.ndarray, precision: int | np.ndarray) -> None:
        """Push a symbol on each of some stacks; its frequency is at least 1 and below 2^precision, which is at most 32.

        A frequency of 2^precision would cost nothing, and is not allowed for.
        """
        precision = np.asarray(precision, np.uint64)
        x = self.heads[stacks]
        full = x >= frequency << (_64 - precision)
        if full.any():
            self._put(stacks[full], x[full].astype(np.uint32))
            x[full] >>= _32
        quotient, remainder = np.divmod(x, frequency)
        self.heads[stacks] = (quotient << precision) + remainder + start

    def peek(self, stacks: np.ndarray, precision: int | np.ndarray) -> np.ndarray:
        """A number (n,) within the interval of the symbol on top of each of some stacks."""
        return self.heads[stacks] & ((np.uint64(1) << np.asarray(precision, np.uint64)) - np.uint64(1))

    def pop(self, stacks: np.ndarray, start: np.ndarray, frequency: np.ndarray, precision: int | np.ndarray) -> None:
        """Pop the symbol that `peek` has led to."""
        precision = np.asarray(precision, np.uint64)
        x = frequency * (self.heads[stacks] >> precision) + self.peek(stacks, precision) - start
        low = x < LEAST_HEAD
        if low.any():
            x[low] = x[low] << _32 | self._take(stacks[low])
        self.heads[stacks] = x

    def _put(self, stacks: np.ndarray, words: np.ndarray) -> None:
        counts = self._counts[stacks]
        if counts.max() == self._words.shape[1]:
            self._words = np.concatenate([self._words, np.zeros_like(self._words)], 1)
        self._words[stacks, counts] = words
        self._counts[stacks] += 1

    def _take(self, stacks: np.ndarray) -> np.ndarray:
        counts = self._counts[stacks]
        words = self._words[stacks, counts - 1].astype(np.uint64)
        self._counts[stacks] = np.maximum(counts - 1, 0)
        if (empty := counts == 0).any():
            words[empty] = 0 if self._supply is None else self._supply(stacks[empty])
        return words
