"""Recurrent latent variable models start as transform codes: latents that say something, a decoder that can tell."""

import pytest
import torch

from speechlvm.distributions import build_distribution
from speechlvm.distributions.noise import Noise
from speechlvm.models import build_model
from speechlvm.models.bound import slice_features
from speechlvm.modules.initialise import cosine_transform
from speechlvm.observation import AudioObservation, Statistics


def gated(hidden):
    return {"stochastic_layers": 2, "layers": 3, "channels": hidden, "latent_total": 40}


def recurrent(hidden, **conf):
    return {"latent": 20, "hidden": hidden, "state": 2 * hidden, "mlp_layers": 3, **conf}


def before_head(model):
    return model.decoder.hidden[-1]


SYSTEMS = {  # registered name, sizes, level, the layer whose outputs the head sees
    "vrnn": ("vrnn", recurrent, "z1", before_head),
    "srnn": ("srnn", recurrent, "z1", before_head),
    "srnn_filtering": ("srnn", lambda hidden: recurrent(hidden, posterior="filtering"), "z1", before_head),
    "stochastic_wavenet": ("stochastic_wavenet", gated, "z2", lambda model: model.hidden),
}


@pytest.mark.parametrize(("stack", "hidden"), [(16, 64), (16, 24), (1, 16)])
@pytest.mark.parametrize("name", SYSTEMS)
def test_first_means_are_cosine_coefficients(name, stack, hidden):
    registered, sizes, level, last = SYSTEMS[name]
    observation = AudioObservation("mulaw", Statistics(0.0, 0.1))
    torch.manual_seed(0)
    distribution = build_distribution("dmol", {"components": 2}, observation)
    conf = {"stack": stack, "initialisation": "transform", **sizes(hidden)}
    model = build_model(registered, conf, 1, distribution)
    generator = torch.Generator().manual_seed(0)
    pcm = (torch.randn(2, 40 * stack, generator=generator) * 500).to(torch.int16)
    lengths = torch.full((2,), 40 * stack)
    inputs, numbers = observation.inputs(pcm, lengths), min(hidden // 4, stack)
    features = model.encode(inputs, lengths)
    inference = model.infer(
        inputs, lengths, features=slice_features(features, 0, 40 * stack), noise=Noise([(0, "a"), (0, "b")])
    )
    posterior = inference.conditionals.posterior[level]
    coefficients = inputs.reshape(2, 40, stack) @ cosine_transform(stack, numbers).float().t()
    pairs = torch.stack([posterior.mean[..., :numbers].flatten(), coefficients.flatten()])
    assert torch.corrcoef(pairs)[0, 1] > 0.97  # the smoother's go through a tanh
    assert (posterior.std[..., :numbers] - 0.21).abs().max() < 0.05
    assert (posterior.std[..., numbers:] - 1).abs().max() < 0.1
    # the decoder's last layer still holds them: units k and k + m are the parts of one number
    held = []
    last(model).register_forward_hook(lambda layer, given, output: held.append(output))
    model.infer(inputs, lengths, features=features, noise=Noise([(0, "a"), (0, "b")]))
    z = inference.latents[level].transpose(0, 1)[..., :numbers]
    if held[0].shape[:2] != z.shape[:2]:
        z = z.transpose(0, 1)
    number = held[0][..., :numbers].relu() - held[0][..., numbers : 2 * numbers].relu()
    torch.testing.assert_close(number, z, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("stack", [16, 1])
def test_of_z_forcing_an_lstm_carries_them(stack):
    """Posterior means, and what the head sees, follow the coefficients and z through two tanh each."""
    observation = AudioObservation("mulaw", Statistics(0.0, 0.1))
    torch.manual_seed(0)
    distribution = build_distribution("dmol", {"components": 2}, observation)
    sizes = {"latent": 20, "hidden": 64, "state": 64, "embedding": 64, "initialisation": "transform"}
    model = build_model("zforcing", {"stack": stack, **sizes}, 1, distribution)
    generator = torch.Generator().manual_seed(0)
    pcm = (torch.randn(2, 40 * stack, generator=generator) * 500).to(torch.int16)
    lengths = torch.full((2,), 40 * stack)
    inputs, numbers, held = observation.inputs(pcm, lengths), min(16, stack), []
    model.head.register_forward_hook(lambda layer, given, output: held.append(given[0]))
    noise = Noise([(0, "a"), (0, "b")])
    inference = model.infer(inputs, lengths, features=model.encode(inputs, lengths), noise=noise)
    posterior, z = inference.conditionals.posterior["z1"], inference.latents["z1"]
    coefficients = inputs.reshape(2, 40, stack) @ cosine_transform(stack, numbers).float().t()
    for found, carried in ((posterior.mean, coefficients), (held[0], z[..., :numbers])):
        pairs = torch.stack([found[..., :numbers].flatten(), carried.flatten()])
        assert torch.corrcoef(pairs)[0, 1] > 0.95
    assert (posterior.std[..., :numbers] - 0.21).abs().max() < 0.05


PLAIN = {
    "vrnn": ({"latent": 20, "hidden": 64, "state": 64, "mlp_layers": 3}, lambda model: model.phi_x.hidden[0].weight),
    "srnn": ({"latent": 20, "hidden": 64, "state": 64, "mlp_layers": 3}, lambda model: model.phi_x.hidden[0].weight),
    "zforcing": (
        {"latent": 20, "hidden": 64, "state": 64, "embedding": 64},
        lambda model: model.embedding.weight,
    ),
    "stochastic_wavenet": (
        {"channels": 64, "layers": 2, "stochastic_layers": 2, "latent_total": 40},
        lambda model: model.mirror.first.weight,
    ),
    "stcn": ({"channels": 64, "latents": [20, 10]}, lambda model: model.first.weight),
    "cwvae": ({"stride": 16, "levels": 2, "width": 20}, lambda model: model.levels[0].posterior_direct.weight),
}


@pytest.mark.parametrize("name", PLAIN)
def test_it_is_a_setting(name):
    """The same random numbers give other first weights; the defaults are those of the papers' configurations."""
    distribution = build_distribution("dmol", {"components": 2}, AudioObservation("mulaw", Statistics(0.0, 0.1)))
    sizes, first = PLAIN[name]
    sizes = sizes if name == "cwvae" else {"stack": 16, **sizes}
    found = {}
    for conf in ({"initialisation": "plain"}, {"initialisation": "transform"}, {}):
        torch.manual_seed(0)
        found[conf.get("initialisation")] = first(build_model(name, {**sizes, **conf}, 1, distribution))
    assert torch.equal(found[None], found["transform"])
    assert not torch.equal(found["plain"], found["transform"])
    assert found["plain"].count_nonzero() == found["plain"].numel()


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("vrnn", {"hidden": 1, "state": 2, "latent": 1}),
        ("srnn", {"hidden": 32, "state": 3, "latent": 9}),
        ("srnn", {"hidden": 2, "state": 1, "latent": 1, "posterior": "filtering"}),
        ("stcn", {"channels": 1, "latents": [1]}),
        ("zforcing", {"hidden": 3, "state": 2, "latent": 1, "embedding": 1}),
        ("stochastic_wavenet", {"channels": 3, "layers": 1, "stochastic_layers": 1, "latent_total": 1}),
    ],
)
def test_sizes_too_small_for_coefficients_still_make_a_model(name, sizes):
    distribution = build_distribution("dmol", {"components": 2}, AudioObservation("mulaw", Statistics(0.0, 0.1)))
    model = build_model(name, {"stack": 16, **sizes}, 1, distribution)
    if name == "srnn" and sizes["state"] == 3:  # what carries coefficients ends with the state
        assert not model.posterior.hidden[0].weight[:6, 3:].any()
        assert model.posterior.hidden[0].weight[6:, 3:].any()
