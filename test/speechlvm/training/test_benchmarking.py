"""The arithmetic that benchmarks relate times to."""

import pytest
import torch

from speechlvm.modules import recurrence
from speechlvm.modules.chain import run_plain
from speechlvm.modules.recurrence import Affine, Chain, GRUCell
from speechlvm.training.benchmarking import operations, product_gflop


def test_products_are_counted_with_their_gradients():
    weight = torch.randn(5, 7).requires_grad_()
    x = torch.randn(3, 7)
    assert product_gflop(lambda: x @ weight.t()) * 1e9 == 2 * 3 * 7 * 5
    assert product_gflop(lambda: (x @ weight.t()).sum().backward()) * 1e9 == 2 * 2 * 3 * 7 * 5
    total = torch.zeros(3, 5)
    assert product_gflop(lambda: total.addmm_(x, weight.detach().t())) * 1e9 == 2 * 3 * 7 * 5


@pytest.mark.parametrize("large", [1, 2**18])
def test_packed_products_of_chains_are_counted_like_others(monkeypatch, large):
    monkeypatch.setattr("speechlvm.modules.fast_chain._LARGE", large)
    torch.manual_seed(0)
    cell, steps, batch = GRUCell(6, 4), 5, 3
    weight = torch.randn(6, 4).requires_grad_()

    def states():
        chain = Chain(h=torch.zeros(batch, 4))
        u = chain.linear("u", (Affine(weight), chain.before("h")), torch.zeros(steps, batch, 6), active=True)
        return chain.run(chain.gru("h", cell, (cell.input, u)))[0]

    macs = steps * batch * (4 * 6 + 6 * 12 + 4 * 12)
    assert product_gflop(states) * 1e9 == 2 * macs
    assert product_gflop(lambda: states().sum().backward()) * 1e9 == 3 * 2 * macs  # to the weights and to the states
    monkeypatch.setattr(recurrence, "run_chain", run_plain)
    assert product_gflop(states) * 1e9 == 2 * macs


def test_lstms_of_torch_are_counted():
    lstm, x = torch.nn.LSTM(6, 4), torch.randn(5, 3, 6)
    macs = 5 * 3 * (6 * 16 + 4 * 16)
    assert product_gflop(lambda: lstm(x)) * 1e9 == 2 * macs
    assert product_gflop(lambda: lstm(x)[0].sum().backward()) * 1e9 == 3 * 2 * macs


def test_operations_are_counted_with_their_gradients_and_without_views():
    weight = torch.randn(5, 7).requires_grad_()
    x = torch.randn(3, 7)
    assert operations(lambda: x.sigmoid().t().exp()) == 2
    assert operations(lambda: torch.mm(x, weight.detach().t())) == 1
    forward = operations(lambda: torch.mm(x, weight.t()).sum())
    assert forward == 2 and operations(lambda: torch.mm(x, weight.t()).sum().backward()) > forward
