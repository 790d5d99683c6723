"""Steps backwards within each row's own length."""

import torch

from speechlvm.modules.frames import reverse_steps


def test_rows_are_reversed_within_their_lengths():
    values = torch.arange(8.0).reshape(4, 2, 1)  # rows 0, 2, 4, 6 and 1, 3, 5, 7
    found = reverse_steps(values, torch.tensor([4, 2]))[..., 0]
    assert found.t().tolist() == [[6, 4, 2, 0], [3, 1, 5, 7]]


def test_a_row_that_has_ended_stays():
    values = torch.arange(3.0).reshape(3, 1, 1)
    assert torch.equal(reverse_steps(values, torch.tensor([0])), values)


def test_gradient_is_reversed_likewise():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(5, 3, 2, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: reverse_steps(x, torch.tensor([5, 3, 1])), values)
