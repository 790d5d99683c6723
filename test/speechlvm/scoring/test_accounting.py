import math
import tracemalloc

import numpy as np
import pytest
import torch

from speechlvm.models.bound import Bound, Series
from speechlvm.modules.frames import frame_mask
from speechlvm.scoring.accounting import LN2, UtteranceScore, bootstrap_interval, corpus_score
from speechlvm.scoring.objective import objective, row_terms


def _bound():
    lengths = torch.tensor([4, 3])
    log_likelihood = torch.tensor([[-1.0, -2.0, -3.0, -4.0], [-1.0, -1.0, -1.0, float("nan")]])
    kl = torch.tensor([[[0.5, 0.25], [0.0, 0.25]], [[1.0, 2.0], [3.0, 4.0]]])
    return Bound(
        Series(log_likelihood, frame_mask(lengths, 4), 1),
        {"z1": Series(kl, frame_mask(torch.tensor([4, 2]), 4, 2), 2)},
        auxiliary={"b": Series(torch.full((2, 2), 7.0), torch.ones(2, 2, dtype=torch.bool), 2)},
    )


def test_objective_by_hand():
    frames = 7
    assert objective(_bound(), frames).item() == pytest.approx((13 + 0.75 + 0.25 + 3.0) / frames)
    assert objective(_bound(), frames, kl_weight=0.5).item() == pytest.approx((13 + 2.0) / frames)
    # steps of 0.75, 0.25 and 3.0 nats with 0.5 free
    assert objective(_bound(), frames, free_nats=0.5).item() == pytest.approx((13 + 0.75 + 0.5 + 3.0) / frames)
    assert objective(_bound(), frames, auxiliary_weights={"b": 0.1}).item() == pytest.approx((17 + 2.8) / frames)


def test_padding_gives_no_gradient():
    bound = _bound()
    bound.log_likelihood.values.requires_grad_()
    objective(bound, 7).backward()
    expected = torch.tensor([[-1.0] * 4, [-1.0] * 3 + [0.0]]) / 7
    torch.testing.assert_close(bound.log_likelihood.values.grad, expected)


def test_row_terms_are_float64_and_masked():
    bound = _bound()
    bound.log_likelihood.values[1, 3] = 1e6
    terms = row_terms(bound)
    assert terms["log_likelihood"].dtype == torch.float64
    assert terms["log_likelihood"].tolist() == [-10.0, -3.0]
    assert terms["kl_z1"].tolist() == [1.0, 3.0]


def test_corpus_score_by_hand_and_in_any_order():
    scores = [UtteranceScore("b", 100, -200.0, {"kl_z1": 5.0}), UtteranceScore("a", 300, -300.0, {"kl_z1": 15.0})]
    total = corpus_score(scores)
    assert total == corpus_score(reversed(scores))
    assert total.nats_per_frame == -500 / 400
    assert total.bits_per_frame == pytest.approx(500 / 400 / math.log(2))
    assert total.nats_per_utterance == -250
    assert total.mean_utterance_bits_per_frame == pytest.approx((2 + 1) / 2 / LN2)
    assert total.terms_nats_per_frame == {"kl_z1": 20 / 400}


def test_sums_lose_nothing():
    scores = [UtteranceScore(f"{i:05d}", 1, value) for i, value in enumerate([1e16, 1.0, -1e16] * 100)]
    assert corpus_score(scores).nats_per_frame == 100 / 300


def test_a_score_that_is_not_finite_is_an_error():
    with pytest.raises(ValueError, match="bad: log-likelihood is nan"):
        corpus_score([UtteranceScore("good", 1, -1.0), UtteranceScore("bad", 1, float("nan"))])
    with pytest.raises(ValueError, match="no utterances"):
        corpus_score([])


def test_bootstrap_interval_covers_at_its_level():
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        frames = generator.integers(50, 150, 60)
        bits = frames * generator.normal(10.0, 1.0, 60)
        low, high = bootstrap_interval(bits, frames, 300, trial)
        covered += low <= 10.0 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_the_interval_needs_little_memory_for_many_utterances():
    generator = np.random.default_rng(0)
    bits, frames = generator.uniform(1, 9, 10000), generator.integers(1, 9, 10000)
    tracemalloc.start()
    low, high = bootstrap_interval(bits, frames, 200, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6  # the counts of all resamples are 16 MB
    counts = np.random.default_rng(1).multinomial(10000, np.full(10000, 1e-4), size=200)
    expected = np.quantile((counts @ bits) / (counts @ frames), [0.025, 0.975])
    np.testing.assert_allclose((low, high), expected, rtol=1e-12)
