"""Stochastic WaveNet: the equations of source B in plain loops, who sees what, and what is refused."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from speechlvm.distributions.gaussian import Gaussian
from speechlvm.distributions.latent import DiagonalGaussian
from speechlvm.distributions.noise import Noise
from speechlvm.models import build_model
from speechlvm.models.bound import slice_features
from speechlvm.models.stochastic_wavenet import Config

STACK = 2
SHAPES = [(1, 1), (3, 3), (4, 2), (3, 1)]  # layers, stochastic layers
EXACTLY = {"rtol": 0, "atol": 1e-10}


def make_model(layers=3, stochastic_layers=3, moved=0.3, **settings):
    """A small model in float64; `moved` weights hide nothing."""
    torch.manual_seed(0)
    settings = {"stack": STACK, "channels": 5, "latent_total": 2 * stochastic_layers, **settings}
    settings = {"layers": layers, "stochastic_layers": stochastic_layers, **settings}
    model = build_model("stochastic_wavenet", settings, 1, Gaussian()).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(moved * torch.randn_like(parameter))
    return model


def make_batch(lengths):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(len(lengths), max(lengths), 1, generator=generator, dtype=torch.float64)
    lengths = torch.tensor(lengths)
    return x * (torch.arange(x.shape[1])[None, :, None] < lengths[:, None, None]), lengths


def make_noise(rows):
    return Noise([("utterance", row) for row in rows], dtype=torch.float64)


def make_latents(model, batch, steps):
    generator = torch.Generator().manual_seed(2)
    sizes = model.latent_sizes.items()
    return {
        level: torch.randn(batch, steps, size, generator=generator, dtype=torch.float64, requires_grad=True)
        for level, size in sizes
    }


def reached(layer, t, layers, steps):
    """Steps whose outputs read d_{t,layer}, by following every edge of (B.4); layer 1 has dilation 1."""
    if t >= steps:
        return set()
    if layer == layers:
        return {t}
    above = (reached(layer + 1, t + shift, layers, steps) for shift in (0, 2**layer))
    return {t}.union(*above)


def seen(layer, t):
    """Pairs (layer', t') of all d that h_{t,layer} reads, layer' < layer."""
    below = [(layer - 1, t), (layer - 1, t - 2 ** (layer - 1))]
    below = {(m, s) for m, s in below if s >= 0}
    return below.union(*(seen(m, s) for m, s in below if m > 0))


@pytest.mark.parametrize(("layers", "stochastic_layers"), SHAPES)
def test_every_factor_sees_what_the_equations_say(layers, stochastic_layers):
    """Exactly: neither one step more nor one less, at all positions, the ends of each window included."""
    steps, model = 19, make_model(layers, stochastic_layers)
    inputs, lengths = make_batch([steps * STACK])
    latents = make_latents(model, 1, steps)
    inputs.requires_grad_()
    features = model.encode(inputs, lengths)
    found = model.conditionals(inputs, lengths, latents, features=features)
    sources, lowest = {"x": inputs, **latents}, layers - stochastic_layers + 1

    def dependencies(value):
        gradients = torch.autograd.grad(value.sum(), list(sources.values()), retain_graph=True, materialize_grads=True)
        gradients = [gradients[0].unflatten(1, (steps, STACK)), *gradients[1:]]
        pairs = zip(sources, gradients, strict=True)
        return {(name, t) for name, g in pairs for t in g[0].flatten(1).ne(0).any(1).nonzero().flatten().tolist()}

    def expected(h):
        """Observations (d_0 at t is x at t - 1) and latents in what is seen of the layers."""
        observed = {("x", t - 1) for layer, t in h if layer == 0 and t > 0}
        return observed | {(f"z{layer - lowest + 1}", t) for layer, t in h if layer >= lowest}

    for t in range(steps):
        for level, layer in zip(latents, range(lowest, layers + 1), strict=True):
            past = expected(seen(layer, t))
            assert dependencies(found.prior[level].mean[:, t]) == past
            assert dependencies(found.prior[level].std[:, t]) == past
            assert min(s for name, s in past | {("x", t)} if name == "x") == max(t - 2**layer, 0)
            future = reached(layer, t, layers, steps)
            assert future == set(range(t, min(t + 2**layers - 2**layer + 1, steps), 2**layer))
            assert dependencies(found.posterior[level].mean[:, t]) == past | {("x", s) for s in future}
        of_frames = found.parameters.unflatten(1, (steps, STACK))[:, t]
        everything = set().union(*(seen(layer, t) | {(layer, t)} for layer in range(1, layers + 1)))
        assert dependencies(of_frames) == expected(everything)
        # the posterior of z sees x_t where, and only where, the likelihood of x_t sees z
        for level, layer in zip(latents, range(lowest, layers + 1), strict=True):
            readers = {s for s in range(steps) if t in reached(layer, s, layers, steps)}
            assert readers == {s for name, s in expected(everything) if name == level}


@pytest.mark.parametrize(("layers", "stochastic_layers"), SHAPES)
def test_factors_are_those_of_the_equations_in_plain_loops(layers, stochastic_layers):
    steps, model = 11, make_model(layers, stochastic_layers).requires_grad_(False)
    inputs, lengths = make_batch([steps * STACK])
    latents = make_latents(model, 1, steps)
    features = model.encode(inputs, lengths)
    found = model.conditionals(inputs, lengths, latents, features=features)
    x = inputs[0].view(steps, STACK)
    zero, lowest = torch.zeros(5, dtype=torch.float64), layers - stochastic_layers

    def unit(layer, past, present):
        a, g = (past @ layer.past + present @ layer.present + layer.bias).chunk(2)
        return a.tanh() * g.sigmoid()

    def at(sequence, t):
        return sequence[t] if 0 <= t < steps else zero

    def mlp(network, h, added=0.0):
        return network.output(F.leaky_relu(network.hidden[0](h) + added))

    b = [model.mirror.first(x[t]) for t in range(steps)]
    evidence = {layers: [model.mirror.top(F.leaky_relu(b[t])) for t in range(steps)]}
    for l, layer in zip(range(layers - 1, lowest, -1), model.mirror.layers, strict=True):
        u = [unit(layer, at(b, t + 2**l), b[t]) for t in range(steps)]  # b_{t,l} of b_{t,l+1} and b_{t+2^l,l+1}
        evidence[l] = [u[t] @ layer.skip for t in range(steps)]
        if layer.residual is not None:
            b = [b[t] + u[t] @ layer.residual for t in range(steps)]

    d = [model.first(x[t - 1] if t else torch.zeros_like(x[0])) for t in range(steps)]
    skip = [model.skip_bias.clone() for _ in range(steps)]
    for l, layer in enumerate(model.layers, 1):
        u = [unit(layer, at(d, t - 2 ** (l - 1)), d[t]) for t in range(steps)]
        h = d = [d[t] + u[t] @ layer.residual for t in range(steps)]
        if l <= lowest:
            skip = [skip[t] + u[t] @ layer.skip for t in range(steps)]
            continue
        level, module = f"z{l - lowest}", model.latents[l - lowest - 1]
        prior = DiagonalGaussian.from_raw(torch.stack([mlp(module.prior_network, h[t]) for t in range(steps)]))
        raw = [mlp(module.posterior_network, h[t], evidence[l][t]) for t in range(steps)]
        posterior = DiagonalGaussian.from_raw(torch.stack(raw))
        for gaussian, of_level in ((found.prior[level], prior), (found.posterior[level], posterior)):
            torch.testing.assert_close(gaussian.mean[0], of_level.mean, **EXACTLY)
            torch.testing.assert_close(gaussian.std[0], of_level.std, **EXACTLY)
        v = [F.leaky_relu(u[t] @ layer.skip + module.bias + module.enter(latents[level][0, t])) for t in range(steps)]
        skip = [skip[t] + module.skip(v[t]) for t in range(steps)]
        if l < layers:
            d = [h[t] + module.residual(v[t]) for t in range(steps)]
    hidden = [F.leaky_relu(model.hidden(F.leaky_relu(skip[t] / math.sqrt(layers)))) for t in range(steps)]
    parameters = torch.stack([model.head(hidden[t]) for t in range(steps)]).view(steps * STACK, -1)
    torch.testing.assert_close(found.parameters[0], parameters, **EXACTLY)


def test_top_layers_are_stochastic_with_equal_shares():
    model = make_model(5, 3, latent_total=500)
    assert model.latent_sizes == {"z1": 166, "z2": 166, "z3": 166}
    assert [layer.dilation for layer in model.layers] == [1, 2, 4, 8, 16]
    assert [layer.dilation for layer in model.mirror.layers] == [16, 8]
    assert build_model("stochastic_wavenet", {}, 1, Gaussian()).latent_sizes == {f"z{l}": 100 for l in range(1, 6)}


@pytest.mark.parametrize("prefix_steps", [0, 20])
@pytest.mark.parametrize(("layers", "stochastic_layers"), SHAPES)
def test_samples_weigh_what_the_model_says(layers, stochastic_layers, prefix_steps):
    """The queues hold what the convolutions read, from the start and after a prefix of any length."""
    model = make_model(layers, stochastic_layers, moved=0.1).requires_grad_(False)
    noise, state = make_noise(range(2)), None
    if prefix_steps:
        x, lengths = make_batch([prefix_steps * STACK] * 2)
        _, state = model(x, x, lengths, features=model.encode(x, lengths), noise=noise)
    samples = model.sample(43, noise, lambda target: target, state)
    lengths = torch.full((2,), 43)
    log_likelihood, log_prior = model.log_joint(samples.target, samples.target, lengths, samples.latents, state=state)
    torch.testing.assert_close(log_likelihood.values, samples.log_likelihood, **EXACTLY)
    assert set(log_prior) == set(samples.log_prior) == set(model.latent_sizes)
    for level, series in log_prior.items():
        assert samples.latents[level].shape == (2, 22, 2)
        torch.testing.assert_close(series.values, samples.log_prior[level], **EXACTLY)
    first = model.sample(14, noise, lambda target: target, state)
    second = model.sample(29, noise, lambda target: target, first.state)
    torch.testing.assert_close(torch.cat([first.target, second.target], 1), samples.target, **EXACTLY)
    with pytest.raises(ValueError, match="43 frames.*multiple of 2" if state is None else "multiple of 2"):
        model.sample(2, noise, lambda target: target, samples.state)


def test_latents_start_near_standard_normal():
    model = make_model(5, 5, moved=0.0, channels=32, latent_total=40, initialisation="plain")
    x, lengths = make_batch([400])
    found = model.conditionals(x, lengths, make_latents(model, 1, 200), features=model.encode(x, lengths))
    for gaussian in (*found.prior.values(), *found.posterior.values()):
        assert gaussian.mean.abs().max() < 0.3 and (gaussian.std - 1).abs().max() < 0.2
    bound = model.score(x, x, lengths, make_noise([0]))
    assert all(series.values.mean() < 0.01 for series in bound.kl.values())


def test_bfloat16_stays_close():
    """In two chunks, so that the state goes through it."""
    model = make_model(4, 2, moved=0.0, channels=16).float()
    x, lengths = make_batch([64])
    x, noise = x.float(), Noise([("utterance", 0)])

    def nats():
        features, state, total = model.encode(x, lengths), None, 0.0
        for start, stop in ((0, 20), (20, 64)):
            part = {"features": slice_features(features, start, stop), "state": state, "noise": noise}
            bound, state = model(x[:, start:stop], x[:, start:stop], lengths - start, **part)
            total = total + bound.log_likelihood.values.sum() - sum(kl.values.sum() for kl in bound.kl.values())
        return total, state

    with torch.autocast("cpu", torch.bfloat16):
        mixed, state = nats()
    assert {value.dtype for name, value in state.items() if name.startswith("layer")} == {torch.bfloat16}
    mixed.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    assert mixed.dtype == torch.float32
    assert abs((mixed - nats()[0]).item()) < 64 * 0.01


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": 3, "stochastic_layers": 4}, r"stochastic_layers 4: .*1 to 3"),
        ({"stochastic_layers": 0}, r"stochastic_layers\n.*greater than or equal to 1.*input_value=0"),
        ({"latent_total": 4}, r"latent_total 4: .*at least 5"),
        ({"latent_total": 0}, r"latent_total\n.*greater than or equal to 1.*input_value=0"),
        ({"layers": 40}, r"layers\n.*less than or equal to 14.*input_value=40"),
        ({"layers": 14, "stochastic_layers": 14, "channels": 4096}, r"channels 4096.*weights.*at most 1000000000"),
        ({"stack": 0}, r"stack\n.*greater than or equal to 1.*input_value=0"),
        ({"dilations": [1]}, r"dilations\n.*not permitted"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        Config(**settings)
