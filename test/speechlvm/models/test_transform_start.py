"""Recurrent latent variable models start as transform codes: latents that say something, a decoder that can tell."""

import pytest
import torch

from speechlvm.distributions import build_distribution
from speechlvm.distributions.noise import Noise
from speechlvm.models import build_model
from speechlvm.models.bound import slice_features
from speechlvm.modules.initialise import cosine_transform
from speechlvm.observation import AudioObservation, Statistics

SYSTEMS = {
    "vrnn": ("vrnn", {}),
    "srnn": ("srnn", {}),
    "srnn_filtering": ("srnn", {"posterior": "filtering"}),
}


@pytest.mark.parametrize(("stack", "hidden"), [(16, 64), (16, 24), (1, 16)])
@pytest.mark.parametrize("name", SYSTEMS)
def test_first_means_are_cosine_coefficients(name, stack, hidden):
    registered, conf = SYSTEMS[name]
    observation = AudioObservation("mulaw", Statistics(0.0, 0.1))
    torch.manual_seed(0)
    distribution = build_distribution("dmol", {"components": 2}, observation)
    sizes = {"stack": stack, "latent": 20, "hidden": hidden, "state": 2 * hidden, "mlp_layers": 3}
    model = build_model(registered, {**conf, **sizes}, 1, distribution)
    generator = torch.Generator().manual_seed(0)
    pcm = (torch.randn(2, 40 * stack, generator=generator) * 500).to(torch.int16)
    lengths = torch.full((2,), 40 * stack)
    inputs, numbers = observation.inputs(pcm, lengths), min(hidden // 4, stack)
    features = model.encode(inputs, lengths)
    inference = model.infer(
        inputs, lengths, features=slice_features(features, 0, 40 * stack), noise=Noise([(0, "a"), (0, "b")])
    )
    posterior = inference.conditionals.posterior["z1"]
    coefficients = inputs.reshape(2, 40, stack) @ cosine_transform(stack, numbers).float().t()
    pairs = torch.stack([posterior.mean[..., :numbers].flatten(), coefficients.flatten()])
    assert torch.corrcoef(pairs)[0, 1] > 0.97  # the smoother's go through a tanh
    assert (posterior.std[..., :numbers] - 0.21).abs().max() < 0.05
    assert (posterior.std[..., numbers:] - 1).abs().max() < 0.1
    # the decoder's last layer still holds them: units k and k + m are the parts of one number
    held = []
    model.decoder.hidden[-1].register_forward_hook(lambda layer, given, output: held.append(output))
    model.infer(inputs, lengths, features=features, noise=Noise([(0, "a"), (0, "b")]))
    number = held[0][..., :numbers].relu() - held[0][..., numbers : 2 * numbers].relu()
    z = inference.latents["z1"].transpose(0, 1)[..., :numbers]
    torch.testing.assert_close(number, z, rtol=0.05, atol=0.02)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("vrnn", {"hidden": 1, "state": 2, "latent": 1}),
        ("srnn", {"hidden": 32, "state": 3, "latent": 9}),
        ("srnn", {"hidden": 2, "state": 1, "latent": 1, "posterior": "filtering"}),
        ("stcn", {"channels": 1, "latents": [1]}),
    ],
)
def test_sizes_too_small_for_coefficients_still_make_a_model(name, sizes):
    distribution = build_distribution("dmol", {"components": 2}, AudioObservation("mulaw", Statistics(0.0, 0.1)))
    model = build_model(name, {"stack": 16, **sizes}, 1, distribution)
    if name == "srnn" and sizes["state"] == 3:  # what carries coefficients ends with the state
        assert not model.posterior.hidden[0].weight[:6, 3:].any()
        assert model.posterior.hidden[0].weight[6:, 3:].any()
