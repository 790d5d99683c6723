"""MLP: shape, and what stays exact under autocast."""

import torch
from torch import nn

from speechlvm.modules.mlp import MLP


def test_it_is_a_stack_of_linear_layers():
    torch.manual_seed(0)
    mlp = MLP(3, 5, 2, output=4)
    a, b = mlp.hidden
    plain = nn.Sequential(a, nn.LeakyReLU(), b, nn.LeakyReLU(), mlp.output)
    x = torch.randn(7, 2, 3)
    torch.testing.assert_close(mlp(x), plain(x))
    assert MLP(3, 5, 1)(x).shape == (7, 2, 5)


def test_observed_input_is_read_exactly_under_autocast():
    torch.manual_seed(0)
    exact, rounded = MLP(1, 8, 1, observed_input=True), MLP(1, 8, 1)
    rounded.load_state_dict(exact.state_dict())
    x = torch.tensor([[0.9], [0.9 + 2.0**-16]])  # neighbouring codes, one number in bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert exact(x).dtype == torch.float32 and (exact(x)[0] != exact(x)[1]).any()
        assert torch.equal(rounded(x)[0], rounded(x)[1])
