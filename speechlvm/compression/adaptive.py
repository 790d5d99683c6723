"""Coding with the adaptive reference, which needs no experiment: each utterance alone, from its own past.

Compiled loops (numba) over one stack of `rans.py` and one table of `tables.py`. Their arithmetic is the same on every
machine (`modules/rls.py`), and so are files.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from speechlvm.coding import PCM_OFFSET, PCM_VALUES
from speechlvm.compression.container import Entry, Header, pcm_crc
from speechlvm.compression.rans import LEAST_HEAD, pack, parse
from speechlvm.compression.source import Coded, Source
from speechlvm.compression.tables import PRECISION, cost_bits
from speechlvm.models.adaptive import State, cdf, start, update
from speechlvm.modules.rls import compiled, internal

LANES = 1

# Typed, because numba makes floats of signed and unsigned integers together.
_LEAST_HEAD = np.uint64(LEAST_HEAD)
_PRECISION, _32, _SPARE = np.uint64(PRECISION), np.uint64(32), np.uint64(64 - PRECISION)
_MASK = np.uint64((1 << PRECISION) - 1)
_SCALE = float((1 << PRECISION) - 2 * PCM_VALUES)


def model_hash() -> str:
    """SHA-256 of the masses of a fixed signal, which change with any setting of the model."""
    pcm = np.cumsum(np.random.default_rng(0).integers(-300, 301, 512))
    return hashlib.sha256(_intervals(start(), pcm)[2].tobytes()).hexdigest()


def encode(experiment: None, source: Source, header: Header, advance: Callable[[int], object]) -> Iterator[Coded]:
    """The utterances longest first."""
    for utterance in source.longest_first:
        pcm = source.read(utterance)
        first, frequency, masses = _intervals(start(), pcm.astype(np.int64))
        advance(len(pcm))
        stream = pack(*_push(first, frequency))
        yield Coded(len(pcm), pcm_crc(pcm), stream, -math.fsum(np.log2(masses)), cost_bits(frequency))


def decode(
    experiment: None,
    header: Header,
    entries: Sequence[Entry],
    read: Callable[[Entry], bytes],
    advance: Callable[[int], object],
) -> Iterator[tuple[Entry, np.ndarray]]:
    """PCM of utterances; arguments as of `autoregressive.decode`."""
    for entry in entries:
        pcm = _pop(start(), entry.frames, *parse(read(entry)))
        advance(entry.frames)
        yield entry, pcm


@internal
def _start(state: State, j: int) -> np.uint64:
    """Q(j) of the coming frame, see `tables.py`."""
    return np.uint64(math.floor(cdf(state, j - PCM_OFFSET) * _SCALE) + 2.0 * j)


@compiled
def _intervals(state: State, pcm: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start, frequency and mass of each frame."""
    first, frequency = np.empty(len(pcm), np.uint64), np.empty(len(pcm), np.uint64)
    masses = np.empty(len(pcm))
    for t in range(len(pcm)):
        j = pcm[t] + PCM_OFFSET
        first[t] = _start(state, j)
        frequency[t] = _start(state, j + 1) - first[t]
        masses[t] = update(state, pcm[t])
    return first, frequency, masses


@compiled
def _push(first: np.ndarray, frequency: np.ndarray) -> tuple[np.uint64, np.ndarray]:
    """Head and words of a stack with all frames on it, the first on top (`rans.Stacks.push`)."""
    head, count, words = _LEAST_HEAD, 0, np.empty(len(first), np.uint32)
    for t in range(len(first) - 1, -1, -1):
        if head >= frequency[t] << _SPARE:
            words[count] = head & np.uint64(0xFFFFFFFF)
            count += 1
            head >>= _32
        head = ((head // frequency[t]) << _PRECISION) + head % frequency[t] + first[t]
    return head, words[:count]


@compiled
def _pop(state: State, frames: int, head: np.uint64, words: np.ndarray) -> np.ndarray:
    """The frames (frames,) int16 on a stack (`rans.Stacks.pop`); zeros below its bottom."""
    pcm, count = np.empty(frames, np.int16), len(words)
    for t in range(frames):
        number = head & _MASK
        low, high = 0, PCM_VALUES
        while high - low > 1:
            middle = (low + high) // 2
            if _start(state, middle) <= number:
                low = middle
            else:
                high = middle
        first = _start(state, low)
        head = (_start(state, low + 1) - first) * (head >> _PRECISION) + number - first
        if head < _LEAST_HEAD:
            head <<= _32
            if count > 0:
                count -= 1
                head |= np.uint64(words[count])
        pcm[t] = low - PCM_OFFSET
        update(state, low - PCM_OFFSET)
    return pcm
