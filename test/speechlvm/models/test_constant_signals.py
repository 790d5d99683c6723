"""Silence and other constants, of any length, have a finite likelihood under every system."""

import math

import torch

from speechlvm.data.dumps.dataset import Batch, Segment
from speechlvm.scoring.score import score_batch

LENGTHS = [1, 5, 90, 90, 90, 90]
VALUES = [0, 0, 0, 11, -32768, 32767]


def test_constants_have_finite_likelihoods(tiny):
    lengths = torch.tensor(LENGTHS)
    values = torch.tensor(VALUES, dtype=torch.int16)[:, None] * (torch.arange(90) < lengths[:, None])
    segments = tuple(Segment(f"u{row}", 0, length) for row, length in enumerate(LENGTHS))
    scores = score_batch(tiny.model, tiny.observation, Batch(segments, values.to(torch.int16), lengths), 64)
    assert [score.frames for score in scores] == LENGTHS
    assert all(math.isfinite(score.nats) and score.nats < 0 for score in scores)
