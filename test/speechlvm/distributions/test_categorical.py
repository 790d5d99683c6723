"""Categorical distribution against its definition."""

import torch

from speechlvm.distributions.categorical import Categorical


def test_log_prob_sums_to_one():
    parameters = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    codes = torch.arange(7).view(7, 1, 1).expand(7, 3, 1)
    masses = Categorical(7).log_prob(parameters.expand(7, 3, 7), codes).exp()
    torch.testing.assert_close(masses.t(), parameters.softmax(-1))


def test_sampling_inverts_the_distribution_function():
    parameters = torch.tensor([0.2, 0.5, 0.3]).log().expand(5, -1)
    noise = torch.tensor([[0.01], [0.19], [0.21], [0.69], [0.71]])
    assert Categorical(3).sample(parameters, noise).flatten().tolist() == [0, 0, 1, 1, 2]


def test_mode_is_the_most_probable_code():
    assert Categorical(3).mode(torch.tensor([0.1, 0.9, 0.4])).tolist() == [1]


def test_start_at_the_frequencies():
    bias = Categorical(4).initial_bias(torch.tensor([[3], [0]]), torch.tensor([9, 1]))
    torch.testing.assert_close(bias.exp(), torch.tensor([1.5, 0.5, 0.5, 9.5], dtype=torch.float64) / 12)
