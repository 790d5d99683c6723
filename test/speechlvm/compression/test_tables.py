"""Integer tables: partitions of 2^P that decoders invert, as good as the likelihoods, and the same whatever else is."""

import math

import numpy as np
import pytest
import torch

from speechlvm.coding import PCM_CODINGS, build_coding
from speechlvm.compression.tables import PRECISION, Bins, cost_bits, least_bits, mixture_table
from speechlvm.distributions.dmol import DiscretizedLogisticMixture

CODES = 65536


def mixtures(seed, count, components=3):
    """Parameters (count, 3 M): usual ones, then extremes."""
    generator = np.random.default_rng(seed)
    parts = [(0, 1, -6, 1), (0, 1, -18, 0), (0, 1, 8, 0), (50, 1, -3, 2), (0, 1e-3, -9, 3)]
    rows = [
        np.concatenate(
            [
                generator.normal(0, 3, components),
                generator.normal(mean, spread, components),
                generator.normal(scale, of_scale, components),
            ]
        )
        for mean, spread, scale, of_scale in (parts[min(i, len(parts) - 1)] for i in range(count))
    ]
    return np.array(rows)


@pytest.mark.parametrize("coding", PCM_CODINGS)
def test_every_code_has_its_interval(coding):
    edges = build_coding(coding).edges.astype(np.float64)
    codes = np.arange(CODES)
    for parameters in mixtures(0, 5):
        table = mixture_table(np.repeat(parameters[None], CODES, 0), edges)
        start, frequency = table.interval(codes)
        assert start[0] == 0 and (frequency >= 1).all()
        np.testing.assert_array_equal(start[1:], (start + frequency)[:-1])
        assert start[-1] + frequency[-1] == 1 << PRECISION
        np.testing.assert_array_equal(table.find(start), codes)
        np.testing.assert_array_equal(table.find(start + frequency - np.uint64(1)), codes)
        assert cost_bits(frequency.max()[None]) >= least_bits(CODES) - 1e-12


def test_they_cost_what_likelihoods_say():
    coding = build_coding("mulaw-pcm")
    distribution = DiscretizedLogisticMixture(coding.edges, 3).double()
    parameters = torch.from_numpy(np.repeat(mixtures(1, 1), 4000, 0))
    codes = distribution.sample(parameters, torch.from_numpy(np.random.default_rng(2).random((4000, 2))))
    bits = -distribution.log_prob(parameters, codes).sum().item() / math.log(2)
    _, frequency = mixture_table(parameters.numpy(), coding.edges.astype(np.float64)).interval(codes[:, 0].numpy())
    assert 0 < cost_bits(frequency) - bits < 0.0004 * 4000


def test_no_bit_depends_on_what_is_computed_beside():
    edges = build_coding("mulaw-pcm").edges.astype(np.float64)
    parameters = mixtures(3, 100, components=10).astype(np.float32)
    codes = np.random.default_rng(0).integers(20000, 50000, 100)
    with np.errstate(over="ignore"):
        whole = mixture_table(parameters, edges).cdf(codes)
        for size in (1, 2, 3, 7, 33):
            for first in range(0, 100, size):
                rows = slice(first, first + size)
                part = mixture_table(parameters[rows], edges).cdf(codes[rows])
                np.testing.assert_array_equal(part, whole[rows])


@pytest.mark.parametrize("bits", [1, 6, 12])
def test_bins_of_latents(bits):
    bins, size = Bins(np.array([bits, 3])), 1 << bits
    k, first = np.arange(size), np.zeros(size, int)

    def normal(mean, std):
        return np.full(size, mean), np.full(size, std)

    prior, posterior = normal(-0.7, 1.9), normal(0.4, 0.3)
    z = bins.centres(np.stack([k, k % 8], 1), prior[0][:, None], prior[1][:, None])
    assert (np.diff(z[:, 0]) > 0).all() and z[0, 0] < -0.7 < z[-1, 0]
    start, frequency = bins.table(prior, prior, first).interval(k)
    assert (np.abs(frequency.astype(float) - 2.0 ** (PRECISION - bits)) <= 4 * size).all()  # the prior: plain bits
    start, frequency = bins.table(posterior, prior, first).interval(k)
    assert start[0] == 0 and start[-1] + frequency[-1] == 1 << PRECISION and (frequency >= 1).all()
    np.testing.assert_array_equal(bins.table(posterior, prior, first).find(start), k)
    mass = frequency / 2**PRECISION
    assert (mass * z[:, 0]).sum() == pytest.approx(0.4, abs=2.0 ** (1.5 - bits))
    assert (bins.table(posterior, prior, first + 1).size == 8).all()
