"""Scores on devices that are not the CPU: the same, and the host waits once for a batch."""

import pytest
import torch

from speechlvm.data.dumps import open_dump
from speechlvm.distributions import build_distribution
from speechlvm.models import build_model
from speechlvm.observation import AudioObservation, Statistics
from speechlvm.scoring.score import score_dump

LENGTHS = [70, 20, 9]


@pytest.mark.parametrize("options", [{}, {"samples": 3}, {"samples": 3, "resample": True}], ids=str)
def test_one_wait_for_a_batch_or_a_long_utterance(make_dump, other_device, waits_in, options):
    # the first is long, except for particles, or in a batch with the second; in chunks of two steps
    dump = open_dump(make_dump("test", LENGTHS))
    found = []
    for device in (torch.device("cpu"), other_device):
        observation = AudioObservation("mulaw8", Statistics(0.0, 0.1))
        torch.manual_seed(0)
        distribution = build_distribution("dmol", {"components": 2}, observation)
        model = build_model("vrnn", {"stack": 10, "latent": 2, "hidden": 4, "state": 3}, 1, distribution)
        model = model.double().eval().requires_grad_(False).to(device)
        scores, observation = [], AudioObservation("mulaw8", Statistics(0.0, 0.1), device)

        def score():
            given = {"max_frames": 50 * options.get("samples", 1), "chunk_frames": 20, **options}
            scores.extend(score_dump(model, observation, dump, **given))  # noqa: B023

        if device.type == "cpu":
            score()
        else:
            waits = waits_in(score)
            assert len(waits) == 2, waits
        found.append({score.utterance: (score.nats, *score.terms.values()) for score in scores})
    assert len(found[0]) == 3 and found[0].keys() == found[1].keys()
    for utterance, numbers in found[0].items():
        assert found[1][utterance] == pytest.approx(numbers, rel=1e-9)
