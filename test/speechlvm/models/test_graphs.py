"""Steps of samplers as CUDA graphs, which the CPU pretends to have: nothing of the first steps stays in later ones."""

import copy

import pytest
import torch
from devices import graphs, pretended, recorded_waits

from speechlvm.distributions import build_distribution
from speechlvm.distributions.noise import Noise
from speechlvm.models import build_model
from speechlvm.modules import fast_chain
from speechlvm.observation import AudioObservation, Statistics
from speechlvm.training.benchmarking import counts

BLOCK_STEPS, STEPS = 10, 24  # of the slowest clock: three blocks, the last one shorter


@pytest.fixture
def sampler(named_elsewhere, monkeypatch):
    """sampler(device)(steps, **options) -> samples of a system, of two rows, in float64."""
    name, conf = named_elsewhere
    if "experts" in conf:
        pytest.skip("the host computes experts, frame by frame")
    torch.manual_seed(0)
    distribution = build_distribution("dmol", {"components": 3}, AudioObservation("mulaw8", Statistics(0.0, 0.1)))
    model = build_model(name, conf, 1, distribution).double().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    for name, value in (
        ("ancestral.SAMPLED_BLOCK_FRAMES", BLOCK_STEPS * model.stack),
        ("wavenet._SAMPLED_BLOCK_STEPS", BLOCK_STEPS),
        ("cwvae.GENERATED_AT_ONCE_FRAMES", 2 * STEPS * model.hop),
    ):
        monkeypatch.setattr(f"speechlvm.models.{name}", value)
    monkeypatch.setattr(fast_chain, "BLOCK", 16)  # as many for STEPS - 2 as for STEPS, on each clock

    def on(device):
        observation = AudioObservation("mulaw8", Statistics(0.0, 0.1), device)
        noise, there = Noise([(0, "a"), (0, "b")], device, torch.float64), copy.deepcopy(model).to(device)
        return lambda steps, **options: there.sample(steps * model.hop, noise, observation.inputs_of, **options)

    return on


def contents(samples):
    return {"target": samples.target, "log_likelihood": samples.log_likelihood} | {
        f"{what} {name}": value
        for what in ("state", "latents", "log_prior")
        for name, value in getattr(samples, what).items()
    }


@pytest.mark.parametrize("given", [False, True], ids=["drawn", "given"])
def test_a_graph_repeats_the_step(sampler, graphs_on, given):
    graphs_on(())
    sample = sampler("cpu")
    options, here = {}, sample(STEPS)
    if given:  # the latents of the lowest level, in one row
        level, z = next(iter(here.latents.items()), (None, None))
        if level is None:
            pytest.skip("no latents")
        options = {"latents": {level: z.flip(1)}, "temperature": torch.tensor([0.7, 1.2])}
        options["latents"][level][1] = torch.nan
        here = sample(STEPS, **options)
    graphs_on(("cpu",), graphs.no_capture)
    plain = contents(sample(STEPS, **options))
    graphs_on(("cpu",))
    graph = contents(sample(STEPS, **options))
    assert torch.equal(plain["target"], here.target)
    for name, value in contents(here).items():
        torch.testing.assert_close(plain[name], value, rtol=1e-9, atol=1e-9)
        assert torch.equal(graph[name], plain[name]), name


def test_python_does_nothing_for_a_step_but_to_replay(sampler, graphs_on):
    graphs_on(("cpu",))
    sample = sampler("cpu")
    sample(STEPS)  # graphs of chains are kept
    fewer, more = (counts(lambda: sample(steps)).operations for steps in (STEPS - 2, STEPS))  # noqa: B023
    assert fewer == more


def test_no_step_waits(sampler, graphs_on):
    graphs_on(())
    here, there = sampler("cpu")(STEPS), []
    with pretended() as device:
        graphs_on((device.type,), graphs.no_capture)
        sample = sampler(device)
        waits = recorded_waits(device, lambda: there.append(sample(STEPS)))
        assert not waits
        assert torch.equal(there[0].target.cpu(), here.target)


def test_the_host_may_choose_every_frame(sampler, graphs_on):
    graphs_on(("cpu",))
    sample, chosen = sampler("cpu"), []

    def choose(parameters):
        chosen.append(parameters.shape[1])
        return torch.full((*parameters.shape[:2], 1), len(chosen))

    target = sample(STEPS, choose=choose).target
    assert sum(chosen) == target.shape[1] and target.max() == len(chosen)
