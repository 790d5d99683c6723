"""The arithmetic that benchmarks relate times to."""

from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType
from torch.utils.flop_counter import FlopCounterMode

from speechlvm.modules import recurrence
from speechlvm.modules.chain import run_plain
from speechlvm.modules.recurrence import Affine, Chain, GRUCell
from speechlvm.training import benchmarking
from speechlvm.training.benchmarking import counts, launches, product_gflop


def test_products_are_counted_with_their_gradients():
    weight = torch.randn(5, 7).requires_grad_()
    x = torch.randn(3, 7)
    assert product_gflop(lambda: x @ weight.t()) * 1e9 == 2 * 3 * 7 * 5
    assert product_gflop(lambda: (x @ weight.t()).sum().backward()) * 1e9 == 2 * 2 * 3 * 7 * 5
    total = torch.zeros(3, 5)
    assert product_gflop(lambda: total.addmm_(x, weight.detach().t())) * 1e9 == 2 * 3 * 7 * 5


@pytest.mark.parametrize("large", [1, 2**18])
def test_packed_products_of_chains_are_counted_like_others(monkeypatch, large):
    monkeypatch.setattr("speechlvm.modules.chain_steps._LARGE", large)
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
    assert counts(lambda: x.sigmoid().t().exp()).operations == 2
    assert counts(lambda: torch.mm(x, weight.detach().t())).operations == 1
    forward = counts(lambda: torch.mm(x, weight.t()).sum()).operations
    assert forward == 2 and counts(lambda: torch.mm(x, weight.t()).sum().backward()).operations > forward


def test_bytes_are_those_that_operations_read_and_write():
    x, y = torch.zeros(3, 7), torch.zeros(3, 7, dtype=torch.float64)
    assert counts(lambda: x.exp()).bytes == 2 * 3 * 7 * 4
    assert counts(lambda: y.add_(1)).bytes == 2 * 3 * 7 * 8
    assert counts(lambda: x.copy_(y)).bytes == 3 * 7 * (8 + 4)
    assert counts(lambda: torch.exp(x, out=x)).bytes == 2 * 3 * 7 * 4
    assert counts(lambda: torch.empty(1000)).bytes == 0
    expanded = torch.zeros(3, 1).expand(3, 7)
    assert counts(lambda: torch.mul(x, expanded)).bytes == (2 * 3 * 7 + 3) * 4


def test_lstms_of_cudnn_are_counted(monkeypatch):
    """Their operations need a GPU, so the counter is asked about shapes."""
    known = {}

    class Counter(FlopCounterMode):
        def __init__(self, **options):
            known.update(options["custom_mapping"])
            super().__init__(**options)

    monkeypatch.setattr(benchmarking, "FlopCounterMode", Counter)
    product_gflop(lambda: None)
    weights = [(16, 6), (16, 4), (16,), (16,)]
    macs = 5 * 3 * (6 * 16 + 4 * 16)
    assert known[torch.ops.aten._cudnn_rnn]((5, 3, 6), weights, 4, None) == 2 * macs
    assert known[torch.ops.aten._cudnn_rnn_backward]((5, 3, 6), weights, 4, None) == 2 * 2 * macs


class Event:
    def __init__(self, device, name, milliseconds=0):
        self.device_type, self.name, self.duration_ns = lambda: device, lambda: name, lambda: milliseconds * 1_000_000


class Profile:
    """A profile of a GPU as torch gives it: of the profiler alone, then of a run."""

    def __init__(self, **_):
        self.found = [Event(DeviceType.CPU, "cudaDeviceSynchronize")] * 2
        self.profiler = SimpleNamespace(kineto_results=SimpleNamespace(events=lambda: self.found))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def ran(self):
        calls = ["cudaStreamSynchronize", *["cudaLaunchKernel"] * 5, "cudaGraphLaunch", *["cudaMemcpyAsync"] * 2]
        self.found += [Event(DeviceType.CPU, name) for name in (*calls, "cudaEventRecord")]
        self.found += [Event(DeviceType.CUDA, "Memcpy DtoH", 1)] * 2 + [Event(DeviceType.CUDA, "gemm", 2)] * 15


def test_launches_of_a_profile(monkeypatch):
    profiles = []
    monkeypatch.setattr("torch.profiler.profile", lambda **_: profiles.append(Profile()) or profiles[-1])
    found = launches(lambda: profiles[-1].ran(), torch.device("cpu"))
    assert (found.calls, found.kernels, found.waits) == (8, 17, 1)
    assert found.busy_seconds == pytest.approx(0.032) and found.longest[0] == ("gemm", 15, pytest.approx(0.03))
