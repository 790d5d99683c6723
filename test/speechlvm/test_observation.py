import numpy as np
import pytest
import torch

from speechlvm.observation import OBSERVATIONS, AudioObservation, Observation, Statistics
from speechlvm.utils.errors import ConfigError, UserError

PCM = torch.tensor([[-32768, -1, 0, 1, 77, 32767]], dtype=torch.int16)
LENGTHS = torch.tensor([6])


@pytest.mark.parametrize("coding", OBSERVATIONS)
def test_pcm_comes_back_where_the_coding_is_lossless(coding):
    observation = AudioObservation(coding, Statistics(0.01, 0.05))
    decoded = observation.decode(observation.target(PCM))
    assert decoded.dtype == torch.int16
    error = (decoded.int() - PCM.int()).abs()
    if coding in ("linear", "mulaw-pcm", "normalised"):
        assert not error.any()
    else:
        assert error.max() <= {"mulaw": 6, "mulaw8": 800}[coding]


@pytest.mark.parametrize("coding", OBSERVATIONS)
def test_inputs_of_targets_are_the_inputs(coding):
    observation = AudioObservation(coding, Statistics(0.01, 0.05))
    torch.testing.assert_close(observation.inputs_of(observation.target(PCM)), observation.inputs(PCM, LENGTHS))


def test_inputs_beyond_the_length_are_zero_whatever_the_padding():
    observation = AudioObservation("mulaw", Statistics(0.0, 1.0))
    inputs = observation.inputs(PCM, torch.tensor([2]))
    assert inputs[0, :2].abs().min() > 0 and not inputs[0, 2:].any()


def test_normalised_has_zero_mean_and_unit_variance():
    samples = np.random.default_rng(0).normal(100, 2000, 50000).clip(-32768, 32767).astype(np.int16)
    histogram = np.bincount(samples.astype(int) + 32768, minlength=65536)
    observation = AudioObservation("normalised", Statistics.of_histogram(histogram))
    target = observation.target(torch.from_numpy(samples)[None]).double()
    assert abs(target.mean()) < 1e-6 and abs(target.std(correction=0) - 1) < 1e-6


def test_statistics_of_nothing_or_of_a_constant_are_refused():
    with pytest.raises(UserError, match="no frames"):
        Statistics.of_histogram(np.zeros(65536, np.int64))
    constant = np.zeros(65536, np.int64)
    constant[32768] = 10
    with pytest.raises(UserError, match="constant"):
        Statistics.of_histogram(constant)


def test_marginal_counts_targets():
    histogram = np.zeros(65536, np.int64)
    histogram[[32767, 32768, 32769]] = [3, 5, 2]
    observation = AudioObservation("linear", Statistics(0.0, 1.0))
    targets, counts = observation.marginal(histogram)
    assert targets[:, 0].tolist() == [32767, 32768, 32769] and counts.tolist() == [3, 5, 2]


def test_an_observation_survives_its_dictionary():
    observation = AudioObservation("normalised", Statistics(0.02, 0.3))
    again = Observation.from_dict(observation.to_dict())
    assert torch.equal(again.target(PCM), observation.target(PCM))


def test_unknown_coding():
    with pytest.raises(ConfigError, match="'mulaww' is unknown; expected one of mulaw"):
        AudioObservation("mulaww", Statistics(0.0, 1.0))
