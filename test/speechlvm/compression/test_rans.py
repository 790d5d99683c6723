"""Stacks of bits: popping is the inverse of pushing, and a symbol takes what it should."""

import numpy as np
import pytest

from speechlvm.compression.rans import LEAST_HEAD, Stacks

STACKS, STEPS = 7, 400


def symbols(generator, precision, shape):
    """Intervals of 2^precision, many of them narrow; for a precision of 1, halves."""
    total = 1 << precision
    frequency = np.minimum(2.0 ** generator.uniform(0, precision, shape), total - 1).astype(np.uint64)
    start = (generator.random(shape) * (total - frequency + np.uint64(1))).astype(np.uint64)
    return np.minimum(start, np.uint64(total) - frequency), frequency


def states(stacks):
    return [stacks.to_bytes(stack) for stack in range(STACKS)]


@pytest.mark.parametrize("precision", [1, 12, 30, 32])
def test_what_was_pushed_is_popped(precision):
    generator = np.random.default_rng(precision)
    start, frequency = symbols(generator, precision, (STEPS, STACKS))
    coded = generator.random((STEPS, STACKS)) < 0.8  # others sit out
    stacks, before = Stacks.empty(STACKS), []
    for t in range(STEPS):
        before.append(states(stacks))
        rows = np.flatnonzero(coded[t])
        stacks.push(rows, start[t, rows], frequency[t, rows], precision)
    bits = np.where(coded, precision - np.log2(frequency.astype(float)), 0).sum(0)
    taken = np.array([8 * len(state) for state in states(stacks)])
    if precision < 32:  # beside 2^32 the least of heads is too coarse
        assert (np.abs(taken - bits - 48) < 17 + 0.001 * bits).all()
    stacks = Stacks.of_bytes(states(stacks))
    for t in reversed(range(STEPS)):
        rows = np.flatnonzero(coded[t])
        number = stacks.peek(rows, precision)
        assert (start[t, rows] <= number).all() and (number < start[t, rows] + frequency[t, rows]).all()
        stacks.pop(rows, start[t, rows], frequency[t, rows], precision)
        assert states(stacks) == before[t]


def test_what_was_popped_is_pushed_and_bits_come_from_the_supply_when_there_are_no_others():
    generator, supplied = np.random.default_rng(0), []

    def supply(stacks):
        words = generator.integers(0, 2**32, len(stacks), dtype=np.uint32)
        supplied.extend(zip(stacks.tolist(), words.tolist(), strict=True))
        return words

    heads = generator.integers(LEAST_HEAD, 2 * LEAST_HEAD, STACKS, dtype=np.uint64)
    stacks = Stacks(heads, [np.empty(0, np.uint32)] * STACKS, supply)
    rows, popped = np.arange(STACKS), []
    precision = generator.integers(1, 31, STACKS)
    for _ in range(STEPS):
        number = stacks.peek(rows, precision)
        frequency = np.minimum(np.uint64(9), (1 << precision).astype(np.uint64) - np.uint64(1))
        start = np.minimum(number - number % frequency, (1 << precision).astype(np.uint64) - frequency)
        stacks.pop(rows, start, frequency, precision)
        popped.append((start, frequency))
    assert len(supplied) > STACKS
    for start, frequency in reversed(popped):
        stacks.push(rows, start, frequency, precision)
    for stack, state in enumerate(states(stacks)):
        left = [word for which, word in reversed(supplied) if which == stack]
        assert state == int(heads[stack]).to_bytes(8, "little") + np.array(left, "<u4").tobytes()


@pytest.mark.parametrize("stream", [b"", b"\1" * 7, b"\1" * 11, b"\xff" * 4 + b"\0" * 4])
def test_no_stack(stream):
    with pytest.raises(ValueError, match="no stack|below"):
        Stacks.of_bytes([stream])


def test_heads_at_their_bounds():
    one, frequency, start = np.arange(1), np.array([3], np.uint64), np.array([5], np.uint64)
    for head in (LEAST_HEAD, 2**64 - 1, (3 << 34) - 1, 3 << 34):
        stacks = Stacks(np.array([head], np.uint64), [np.empty(0, np.uint32)])
        before = stacks.to_bytes(0)
        stacks.push(one, start, frequency, 30)
        assert stacks.heads[0] >= LEAST_HEAD
        stacks.pop(one, start, frequency, 30)
        assert stacks.to_bytes(0) == before
