"""Keyed noise: no number depends on who else asks, or in what pieces."""

import math

import numpy as np
import pytest
import torch

from speechlvm.distributions.noise import Noise, NoiseAhead, philox

KEYS = [(0, 1, "utt-a", 0), (0, 1, "utt-b", 0), (0, 1, "utt-a", 16000)]


@pytest.mark.parametrize("draw", ["uniform", "normal"])
@pytest.mark.parametrize("dim", [1, 2, 3, 7])
def test_chunks_join_to_the_whole(draw, dim):
    noise = Noise(KEYS)
    whole = getattr(noise, draw)("z", 5, 40, dim)
    pieces = [getattr(noise, draw)("z", start, steps, dim) for start, steps in ((5, 1), (6, 17), (23, 22))]
    assert whole.shape == (3, 40, dim)
    assert torch.equal(whole, torch.cat(pieces, 1))


def test_reading_ahead_changes_no_number():
    ahead = NoiseAhead(KEYS)
    for start, steps in ((0, 1), (1, 1), (60, 9), (69, 200), (3, 2)):
        for draw in ("normal", "uniform"):
            assert torch.equal(
                getattr(ahead, draw)("z", start, steps, 3), getattr(Noise(KEYS), draw)("z", start, steps, 3)
            )
    assert torch.equal(ahead.normal("y", 3, 2, 3), Noise(KEYS).normal("y", 3, 2, 3))


def test_batch_does_not_matter():
    noise = Noise(KEYS)
    whole = noise.normal("z", 3, 20, 4)
    for row in range(3):
        assert torch.equal(whole[row], Noise([KEYS[row]]).normal("z", 3, 20, 4)[0])
    assert torch.equal(noise.select([2, 0]).normal("z", 3, 20, 4), whole[[2, 0]])


def test_repeat_keeps_the_row_itself_first_and_draws_anew_for_the_others():
    noise = Noise(KEYS[:2])
    single, three = noise.uniform("z", 0, 50, 1), noise.repeat(3).uniform("z", 0, 50, 1)
    assert torch.equal(three[[0, 3]], single)
    assert len({tuple(row.flatten().tolist()) for row in three}) == 6


def test_moments():
    normal = Noise([("a",)], dtype=torch.float64).normal("z", 0, 200_000, 1).flatten()
    assert abs(normal.mean()) < 5 / math.sqrt(200_000)
    assert abs(normal.var() - 1) < 5 * math.sqrt(2 / 200_000)
    assert abs((normal**4).mean() - 3) < 5 * math.sqrt(96 / 200_000)
    uniform = Noise([("a",)], dtype=torch.float64).uniform("x", 0, 200_000, 1).flatten()
    assert 0 < uniform.min() and uniform.max() < 1
    counts = torch.histc(uniform, 50, 0, 1)
    chi_square = ((counts - 4000) ** 2 / 4000).sum()
    assert 20 < chi_square < 95  # 49 degrees of freedom: both limits are beyond 1e-4


def test_streams_rows_steps_and_dimensions_are_independent():
    noise = Noise(KEYS, dtype=torch.float64)
    z1, z2 = noise.normal("z1", 0, 20_000, 2), noise.normal("z2", 0, 20_000, 2)
    series = torch.cat([z1, z2], -1).transpose(1, 2).reshape(12, 20_000)
    series = torch.cat([series[:, :-1], series[:1, 1:]])  # and one series a step later
    correlation = torch.corrcoef(series) - torch.eye(13)
    assert correlation.abs().max() < 5 / math.sqrt(20_000)


def test_float32_uniforms_stay_inside_the_open_interval():
    noise = Noise([("a",)])
    noise._draw = lambda _: [torch.tensor([[[2.0**-54], [1 - 2.0**-54]]], dtype=torch.float64)]
    low, high = noise.uniform("x", 0, 2, 1).flatten()
    assert low.dtype == torch.float32 and torch.isfinite(torch.logit(low)) and torch.isfinite(torch.logit(high))


def test_dtype_changes_rounding_only():
    single, double = (Noise(KEYS, dtype=dtype).normal("z", 0, 10, 2) for dtype in (torch.float32, torch.float64))
    assert torch.equal(single, double.float())


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_words_are_those_of_numpy(device):
    keys = np.random.default_rng(0).integers(0, 2**64, (5, 2), dtype=np.uint64)
    keys[0], keys[1] = 0, 2**64 - 1
    for start, count in ((0, 1), (3, 6), (10**9 + 2, 1250), (2**62, 7)):
        counters = torch.arange(start + 1, start + 1 + count, device=device).repeat(len(keys))
        of_blocks = torch.from_numpy(keys.view(np.int64)).to(device).repeat_interleave(count, 0)
        words = philox(of_blocks, counters).cpu().numpy().view(np.uint64).reshape(len(keys), -1)
        for (low, high), row in zip(keys.tolist(), words, strict=True):
            assert np.array_equal(np.random.Philox(key=low | high << 64, counter=start).random_raw(4 * count), row)


def test_other_devices_have_the_same_numbers_up_to_rounding_in_any_batch_and_chunks(other_device):
    # in float64 two implementations of the quantile function differ by their rounding; in float32 a number is then
    # the same or, rarely, a neighbour
    for dtype, off in ((torch.float64, 1e-14), (torch.float32, 2.0**-23)):
        here, there = Noise(KEYS, dtype=dtype), Noise(KEYS, other_device, dtype)
        assert torch.equal(there.uniform("x", 5, 40, 3).cpu(), here.uniform("x", 5, 40, 3))
        wanted = {"z": (5, 4_000, 3), "y": (2, 7, 1)}
        whole = {stream: values.cpu() for stream, values in there.normals(wanted).items()}
        torch.testing.assert_close(whole, here.normals(wanted), rtol=off, atol=off)
        pieces = [there.select([1, 2]).normal("z", start, steps, 3) for start, steps in ((5, 17), (22, 3_983))]
        assert torch.equal(torch.cat(pieces, 1).cpu(), whole["z"][1:])


def test_streams_drawn_together_are_those_drawn_alone():
    noise, wanted = Noise(KEYS), {"z1": (3, 20, 2), "z2": (0, 5, 3)}
    for _ in range(2):
        assert all(torch.equal(noise.normals(wanted)[name], Noise(KEYS).normal(name, *wanted[name])) for name in wanted)
    assert torch.equal(noise.normals({"z1": (4, 20, 2)})["z1"], Noise(KEYS).normal("z1", 4, 20, 2))
