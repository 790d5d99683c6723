"""Every system on devices that are not the CPU: nothing is made in the wrong place, nothing waits, nothing changes."""

from contextlib import contextmanager

import pytest
import torch
from devices import graphs
from torch._subclasses.fake_tensor import FakeTensorMode

from speechlvm.distributions import build_distribution
from speechlvm.distributions.noise import Noise
from speechlvm.models import build_model
from speechlvm.models.base import Model
from speechlvm.models.bound import Series
from speechlvm.models.experts import KNOWN
from speechlvm.modules import fast_chain
from speechlvm.observation import AudioObservation, Statistics
from speechlvm.scoring.objective import objective
from speechlvm.utils.devices import to_device

KEYS = [(0, row) for row in range(3)]


def build(name, conf, dtype=torch.float32):
    """A model on the CPU in which nothing is zero, and what it observes, by device."""
    coding, statistics = "linear" if "experts" in conf else "mulaw8", Statistics(0.0, 0.1)
    torch.manual_seed(0)
    distribution = build_distribution("dmol", {"components": 3}, AudioObservation(coding, statistics))
    model = build_model(name, conf, 1, distribution).to(dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model, lambda device: AudioObservation(coding, statistics, device)


def bound_of(model, observation, data, lengths, noise):
    inputs, features = observation.inputs(data, lengths).to(noise.dtype), None
    if model.experts:  # as in training: computed beside the reading
        known = torch.rand(*data.shape, KNOWN + 1, generator=torch.Generator().manual_seed(2))
        features = {
            "experts": Series(to_device(known, data.device).to(noise.dtype), torch.ones_like(data, dtype=torch.bool), 1)
        }
    return model.score(inputs, observation.target(data), lengths, noise, features)


def loss_of(bound):
    return objective(bound, 100, 0.5, 1.0, dict.fromkeys(bound.auxiliary, 1.0))


def test_with_fake_tensors_of_a_gpu(named_elsewhere, monkeypatch):
    # they raise if those of the GPU and of the CPU meet and if a value is read, and have a GPU's types under autocast
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(Model, "frames_seen", lambda *_: 0)  # read from a tensor of the CPU, which is fake, too
    model, observe = build(*named_elsewhere)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.backends.cudnn.flags(enabled=False):
        for module in model.modules():
            for name, weight in module.named_parameters(recurse=False):
                setattr(module, name, torch.nn.Parameter(torch.empty_like(weight, device="cuda")))
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, torch.empty_like(buffer, device="cuda"))
        observation, noise = observe("cuda"), Noise(KEYS, "cuda")
        data = torch.empty(3, model.hop + 3, dtype=torch.int16, device="cuda")
        lengths = torch.empty(3, dtype=torch.int64, device="cuda")
        with cuda_autocast():
            bound = bound_of(model, observation, data, lengths, noise)
            loss = loss_of(bound)
        assert loss.device.type == "cuda" and loss.dtype == bound.log_likelihood.values.dtype == torch.float32
        if not model.experts:
            samples = model.sample(model.stack + 1, noise, observation.inputs_of)
            assert samples.target.device.type == "cuda"


@contextmanager
def cuda_autocast():
    """`torch.autocast` refuses without a GPU."""
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        yield
    finally:
        torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_dtype("cuda", torch.float16)


@pytest.mark.parametrize(
    "dtype", [torch.float64, pytest.param(torch.float32, marks=pytest.mark.gpu)], ids=["float64", "float32"]
)
def test_numbers_are_those_of_the_cpu_and_the_host_never_waits(
    named_elsewhere, other_device, waits_in, graphs_on, monkeypatch, dtype
):
    """With chains in blocks of steps on the device, as graphs have them."""
    graphs_on((other_device.type,), graphs.no_capture)
    monkeypatch.setattr(fast_chain, "BLOCK", 2)
    found, samples = [], []
    for device in (torch.device("cpu"), other_device):
        model, observe = build(*named_elsewhere, dtype)
        model, observation, noise = model.to(device), observe(device), Noise(KEYS, device, dtype)
        data = torch.randn(3, model.hop + 3, generator=torch.Generator().manual_seed(3)) * 3000
        given = data.to(torch.int16).to(device), torch.tensor([model.hop + 3, model.hop, 1]).to(device)
        losses = []

        def step():
            losses.append(loss_of(bound_of(model, observation, *given, noise)))  # noqa: B023
            losses[0].backward()  # noqa: B023

        def sample():
            samples.append(model.sample(model.stack + 1, noise, observation.inputs_of))  # noqa: B023

        for run in (step, sample)[: 1 if model.experts else 2]:  # experts are computed by the host, frame by frame
            waits = run() if device.type == "cpu" else waits_in(run)
            assert not waits
        found.append([losses[0], *(parameter.grad for parameter in model.parameters())])
    rtol, atol = (1e-9, 1e-11) if dtype == torch.float64 else (1e-4, 1e-5)
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there.cpu(), here, rtol=rtol, atol=atol)
    if dtype == torch.float64 and len(samples) == 2:
        assert torch.equal(samples[1].target.cpu(), samples[0].target)
