"""Intervals of accuracies: a published one, coverage, speakers as the units, and seeds."""

import numpy as np
import pytest
from scipy import stats

from speechlvm.latents.intervals import of_mean, over_speakers, wilson


def test_wilsons_interval_of_known_counts():
    low, high = wilson(np.arange(10)[:, None] < np.array([[0, 8, 10]]))
    np.testing.assert_allclose(low, [0, 0.4902, 0.7225], atol=1e-4)
    np.testing.assert_allclose(high, [0.2775, 0.9433, 1], atol=1e-4)


def test_the_mean_of_equal_shares_has_nearly_the_interval_of_all_items_together():
    right = np.arange(400)[:, None] < np.array([[100, 200]])
    low, high = (np.tile(end, (4, 1)) for end in wilson(right))
    ends = of_mean(np.tile(right.mean(0), (4, 1)), low, high)
    np.testing.assert_allclose(ends, wilson(np.tile(right, (4, 1))), atol=2e-3)


def test_the_bootstrap_covers_the_truth_with_speakers_who_differ():
    """Accuracies of 30 speakers vary about 0.6; intervals over 600 items as if independent would be too narrow."""
    draws, covered, narrow = np.random.default_rng(0), [], []
    speakers = np.repeat(np.arange(30), 20)
    for _ in range(100):
        right = draws.random((600, 1)) < draws.choice([0.3, 0.9], 30)[speakers][:, None]
        low, high = over_speakers(right, speakers)
        covered.append(low[0] < 0.6 < high[0])
        low, high = wilson(right)
        narrow.append(low[0] < 0.6 < high[0])
    assert np.mean(covered) > 0.88
    assert np.mean(narrow) < 0.7


@pytest.mark.parametrize("speakers", [5, 10])
def test_few_speakers_have_students_interval(speakers):
    shares = np.random.default_rng(2).normal(0.6, 0.05, (speakers, 40))
    half = stats.t.ppf(0.975, speakers - 1) * shares.std(0, ddof=1) / np.sqrt(speakers)
    low, high = over_speakers(shares, np.arange(speakers))
    assert np.mean((high - low) / (2 * half)) == pytest.approx(1, abs=0.15)  # the unexpanded: 0.64 and 0.82


def test_speakers_weigh_by_their_items():
    speakers = np.array(["a"] * 90 + ["b"] * 10)
    low, high = over_speakers((speakers == "a")[:, None], speakers)
    assert low[0] == pytest.approx(0) and high[0] == pytest.approx(1)
    drawn = over_speakers(np.ones((4, 2)), np.arange(4))
    np.testing.assert_array_equal(drawn, np.ones((2, 2)))


def test_the_same_seed_gives_the_same_interval():
    right, speakers = np.random.default_rng(1).random((60, 3)) < 0.5, np.arange(60) // 5
    np.testing.assert_array_equal(over_speakers(right, speakers), over_speakers(right, speakers))
    assert (over_speakers(right, speakers)[0] != over_speakers(right, speakers, seed=1)[0]).any()
