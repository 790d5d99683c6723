"""STCN: against torch's convolutions, who may see what, generation, starts, settings."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from speechlvm.distributions import build_distribution
from speechlvm.distributions.latent import MINIMUM_STD
from speechlvm.distributions.noise import Noise
from speechlvm.models import build_model, model_class
from speechlvm.models.stcn import STCN, Config
from speechlvm.modules.initialise import cosine_transform
from speechlvm.observation import AudioObservation, Statistics

OBSERVATION = AudioObservation("mulaw8", Statistics(0.0, 0.1))
SIZES = {"channels": 5, "latents": [4, 3, 2], "dilations": [1, 2], "output_layers": 2}
VARIANTS = pytest.mark.parametrize(("stack", "dense"), [(1, False), (1, True), (3, False), (3, True)])


def make_stcn(stack=3, dense=True, dtype=torch.float64, distribution="dmol", **sizes):
    """A tiny model with weights that are large enough for everything to matter; no start is zero."""
    torch.manual_seed(0)
    conf = {"dmol": {"components": 2}, "gmm": {"components": 2}}.get(distribution, {})
    observation = OBSERVATION if distribution == "dmol" else AudioObservation("normalised", Statistics(0.0, 0.1))
    settings = {"stack": stack, "dense": dense, **SIZES, **sizes}
    model = build_model("stcn", settings, 1, build_distribution(distribution, conf, observation)).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        model.head.weight.mul_(0.2)
    return model


def make_batch(lengths, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    pcm = torch.randint(-20000, 20000, (len(lengths), max(lengths)), generator=generator).to(torch.int16)
    lengths = torch.tensor(lengths)
    return OBSERVATION.inputs(pcm, lengths).to(dtype), OBSERVATION.target(pcm), lengths


def make_noise(rows, dtype=torch.float64):
    return Noise([("stcn", row) for row in rows], dtype=dtype)


def make_latents(model, batch, steps):
    generator = torch.Generator().manual_seed(2)
    return {
        level: torch.randn(batch, steps, size, generator=generator, dtype=torch.float64)
        for level, size in model.latent_sizes.items()
    }


def totals(bound):
    return bound.log_likelihood.values.sum(1) - sum(series.values.sum((1, 2)) for series in bound.kl.values())


def reference_layers(layers, h):
    """Each layer's output as the paper draws it: h (B, C, S), dilated convolutions over zeros before the first step."""
    outputs = []
    for layer in layers:
        kernel = torch.stack([layer.past.t(), layer.present.t()], -1)
        filters, gate = F.conv1d(F.pad(h, (layer.dilation, 0)), kernel, layer.bias, dilation=layer.dilation).chunk(2, 1)
        h = h + F.conv1d(filters.tanh() * gate.sigmoid(), layer.skip.t()[..., None])
        outputs.append(h)
    return outputs


def reference_gaussian(network, *given):
    hidden = torch.cat(given, -1)
    for layer in network.hidden.hidden:
        hidden = F.leaky_relu(layer(hidden))
    mean, raw = network.output(hidden).chunk(2, -1)
    shift = math.log(math.exp(1 - MINIMUM_STD) - 1)
    return mean, MINIMUM_STD + torch.log1p(torch.exp(raw + shift))


@VARIANTS
def test_factors_are_those_of_the_convolutional_network(stack, dense):
    model = make_stcn(stack, dense)
    steps = 17
    inputs, _, lengths = make_batch([steps * stack] * 2)
    latents = make_latents(model, 2, steps)
    found = model.conditionals(inputs, lengths, latents, features={})

    h = model.first(inputs.reshape(2, steps, stack)).transpose(1, 2)
    outputs = reference_layers(model.encoder.layers, h)
    for index, level in enumerate(model.latent_sizes):
        d = outputs[2 * index + 1].transpose(1, 2)
        before = torch.cat([model.initial[index].expand(2, 1, -1), d[:, :-1]], 1)
        above = [latents[f"z{index + 2}"]] if index < 2 else []
        mean, std = reference_gaussian(model.priors[index], before, *above)
        torch.testing.assert_close(found.prior[level].mean, mean)
        torch.testing.assert_close(found.prior[level].std, std)
        evidence_mean, evidence_std = reference_gaussian(model.evidence[index], d, *above)
        precision = std**-2 + evidence_std**-2
        weighted = (mean * std**-2 + evidence_mean * evidence_std**-2) / precision
        torch.testing.assert_close(found.posterior[level].mean, weighted)
        torch.testing.assert_close(found.posterior[level].std, precision**-0.5)

    seen = torch.cat(list(latents.values()), -1) if dense else latents["z1"]
    top = reference_layers(model.decoder.layers, model.join(seen).transpose(1, 2))[-1].transpose(1, 2)
    parameters = model.head(top).reshape(2, steps * stack, -1)
    torch.testing.assert_close(found.parameters, parameters)


@VARIANTS
def test_who_sees_what(stack, dense):
    """By gradient, at given latents: exactly the receptive fields that the model states."""
    model = make_stcn(stack, dense)
    assert (model.receptive_field, model.latent_field) == (3 * 3 + 1, 3)
    steps, step = 16, 13
    inputs, _, lengths = make_batch([steps * stack])
    inputs.requires_grad_()
    latents = {level: z.requires_grad_() for level, z in make_latents(model, 1, steps).items()}
    found = model.conditionals(inputs, lengths, latents, features={})

    def seen(value):
        places = [inputs, *latents.values()]
        gradients = torch.autograd.grad(value.sum(), places, retain_graph=True, allow_unused=True)
        views = [g.reshape(steps, -1) if g is not None else torch.zeros(steps, 1) for g in gradients]
        assert all(torch.equal(view.ne(0).any(1), view.ne(0).all(1)) for view in views)
        return dict(
            zip(("x", *latents), (view.ne(0).any(1).nonzero().flatten().tolist() for view in views), strict=True)
        )

    for index, level in enumerate(latents):
        above = {name: [step] if name == f"z{index + 2}" else [] for name in latents}
        reach = 3 * (index + 1)  # the blocks up to this level's
        for gaussian, last in ((found.prior[level], step - 1), (found.posterior[level], step)):
            for value in (gaussian.mean[:, step], gaussian.std[:, step]):
                assert seen(value) == {"x": list(range(step - 1 - reach, last + 1)), **above}
    window = list(range(step - model.latent_field + 1, step + 1))
    of_step = found.parameters[:, step * stack : (step + 1) * stack]
    assert seen(of_step) == {"x": [], **{name: window if dense or name == "z1" else [] for name in latents}}


def test_generation_does_no_more_per_step_than_one_pass_through_the_layers(monkeypatch):
    model = make_stcn()
    calls = []
    addmm = torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda *args: (calls.append(args[1].shape), addmm(*args))[1])
    model.sample(10 * model.stack, make_noise(range(2)), OBSERVATION.inputs_of)
    # past, present and residual of six layers of the encoder and two of the decoder; one row per sequence
    assert len(calls) == 10 * 3 * (6 + 2) and {shape[0] for shape in calls} == {2}


def test_the_posterior_is_narrower_than_the_prior_and_is_the_prior_without_evidence():
    model = make_stcn()
    inputs, _, lengths = make_batch([30])
    latents = make_latents(model, 1, 10)
    found = model.conditionals(inputs, lengths, latents, features={})
    assert all((found.posterior[level].std < found.prior[level].std).all() for level in latents)
    with torch.no_grad():
        for network in model.evidence:
            network.output.bias[network.output.out_features // 2 :] = 1e6
    found = model.conditionals(inputs, lengths, latents, features={})
    for level in latents:
        torch.testing.assert_close(found.posterior[level].mean, found.prior[level].mean)
        torch.testing.assert_close(found.posterior[level].std, found.prior[level].std)
    assert model.conditionals(inputs, lengths, latents).posterior == {}


def test_latents_start_narrow_and_cheap():
    """Otherwise nothing of the past gets through them, and they are given up (see the module)."""
    torch.manual_seed(0)
    settings = {"stack": 64, "channels": 32, "latents": [16, 8], "dilations": [1, 2]}
    model = build_model("stcn", settings, 1, build_distribution("dmol", {}, OBSERVATION))
    inputs, target, lengths = make_batch([640], torch.float32)
    noise = make_noise([0], torch.float32)
    with torch.no_grad():
        found = model.infer(inputs, lengths, features={}, noise=noise).conditionals
        bound = model.score(inputs, target, lengths, noise)
    carried = 8  # a quarter of the channels: latents that start as coefficients, and cost something
    narrow = {"z1": slice(carried, None), "z2": slice(None)}
    for level, rest in narrow.items():
        assert found.prior[level].std[..., rest].mean() == pytest.approx(0.13, rel=0.1)
        assert bound.kl[level].values[..., rest].mean() < 0.1  # nats per dimension and step
    assert found.prior["z1"].std[..., :carried].mean() == pytest.approx(0.49, rel=0.1)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("stack", [1, 16])
def test_first_latents_start_as_cosine_coefficients_that_the_decoder_holds(stack, dense):
    torch.manual_seed(0)
    settings = {"stack": stack, "channels": 48, "latents": [16, 8], "dilations": [1, 2], "dense": dense}
    model = build_model("stcn", settings, 1, build_distribution("dmol", {}, OBSERVATION))
    inputs, _, lengths = make_batch([40 * stack], torch.float32)
    numbers = min(12, stack)
    held = []
    model.head.register_forward_hook(lambda head, given, output: held.append(given[0]))
    with torch.no_grad():
        found = model.infer(inputs, lengths, features={}, noise=make_noise([0], torch.float32))
    coefficients = inputs.reshape(1, 40, stack) @ cosine_transform(stack, numbers).float().t()
    pairs = torch.stack([found.conditionals.posterior["z1"].mean[..., :numbers].flatten(), coefficients.flatten()])
    assert torch.corrcoef(pairs)[0, 1] > 0.95
    torch.testing.assert_close(held[0][..., :numbers], found.latents["z1"][..., :numbers], rtol=0, atol=1e-5)


def test_bfloat16_is_close_to_float32():
    model = make_stcn(dtype=torch.float32)
    inputs, target, lengths = make_batch([300], torch.float32)
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            bound, state = model(inputs, target, lengths, features={}, noise=make_noise([0], torch.float32))
            found = model.infer(inputs, lengths, features={}, noise=make_noise([0], torch.float32)).conditionals
        floats = [bound.log_likelihood.values, found.parameters, *(series.values for series in bound.kl.values())]
        assert {value.dtype for value in floats} == {torch.float32}
        assert {value.dtype for name, value in state.items() if name != "frames"} == {torch.float32}
        gradients = torch.autograd.grad(totals(bound).sum(), list(model.parameters()))
        results.append((totals(bound), torch.cat([gradient.flatten() for gradient in gradients])))
    (exact, gradient), (half, half_gradient) = results
    assert 0 < (half - exact).abs() < 0.02 * exact.abs()
    assert (gradient - half_gradient).norm() < 0.05 * gradient.norm()


def test_defaults_are_those_of_source_a():
    assert model_class("stcn") is STCN and STCN.Config is Config
    config = Config()
    assert config.latents == [256, 128, 64, 32, 16] and config.dilations == [1, 2, 4, 8, 16]
    assert (config.stack, config.channels, config.output_layers) == (200, 256, 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stack": 0}, "stack\n.*greater than or equal to 1.*input_value=0"),
        ({"stack": 10**6}, "less than or equal to 4096"),
        ({"channels": 0}, "channels\n.*greater than or equal to 1"),
        ({"channels": 10**6}, "less than or equal to 4096"),
        ({"latents": []}, "latents\n.*at least 1 item"),
        ({"latents": [16, 0]}, r"latents.1\n.*greater than or equal to 1.*input_value=0"),
        ({"latents": [16, 10**6]}, r"latents.1\n.*less than or equal to 4096"),
        ({"latents": [16] * 17}, "at most 16 items"),
        ({"latents": 16}, "valid list"),
        ({"dilations": []}, "dilations\n.*at least 1 item"),
        ({"dilations": [1, -2]}, r"dilations.1\n.*greater than or equal to 1.*input_value=-2"),
        ({"dilations": [10**6]}, "less than or equal to 8192"),
        ({"output_layers": 0}, "output_layers\n.*greater than or equal to 1"),
        ({"output_layers": 65}, "less than or equal to 64"),
        ({"dense": 1}, "valid boolean"),
        ({"channels": 4096, "latents": [8] * 16, "dilations": [1] * 16}, "21894266880 weights .* at most 1000000000"),
        ({"channels": 1024, "latents": [8] * 16, "dilations": [8192]}, "134222848 remembered .* at most 100000000"),
        ({"latent": [16]}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_sizes_are_refused_before_allocation(settings, message):
    with pytest.raises(ValidationError, match=message):
        Config(**settings)
