"""One set of factors: inference, evaluation at given latents and the bound all use the same."""

import copy

import pytest
import torch
from torch import distributions as td

from speechlvm.models.bound import slice_features

FRAMES = 41  # the last step is a partial one
EXACTLY = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture
def scored(tiny_latent, double_noise):
    """Inputs, target and lengths of two rows of different lengths, their features, and what inference made of them."""
    observation = tiny_latent.observation
    generator = torch.Generator().manual_seed(3)
    pcm = torch.randint(-30000, 30000, (2, FRAMES), generator=generator).to(torch.int16)
    lengths = torch.tensor([FRAMES, 22])
    inputs, target = observation.inputs(pcm, lengths).double(), observation.target(pcm)
    features = tiny_latent.model.encode(inputs, lengths)
    inference = tiny_latent.model.infer(inputs, lengths, features=features, noise=double_noise(2))
    return inputs, target, lengths, features, inference


def gaussians(conditionals):
    named = {("prior", level): value for level, value in conditionals.prior.items()}
    return {**named, **{("posterior", level): value for level, value in conditionals.posterior.items()}}


def test_inference_is_the_conditionals_at_its_own_latents(tiny_latent, scored, double_noise):
    model = tiny_latent.model
    inputs, _, lengths, features, inference = scored
    again = model.conditionals(inputs, lengths, inference.latents, features=features)
    torch.testing.assert_close(inference.conditionals.parameters, again.parameters, **EXACTLY)
    fast, plain = gaussians(inference.conditionals), gaussians(again)
    assert list(fast) == list(plain) == [(kind, z) for kind in ("prior", "posterior") for z in model.latent_sizes]
    for name, gaussian in plain.items():
        torch.testing.assert_close(fast[name].mean, gaussian.mean, **EXACTLY)
        torch.testing.assert_close(fast[name].std, gaussian.std, **EXACTLY)
        assert gaussian.mean.shape[-1] == model.latent_sizes[name[1]]
    for level, z in inference.latents.items():
        drawn = again.posterior[level].sample(model.draw_noise(double_noise(2), level, 0, FRAMES))
        torch.testing.assert_close(z, drawn, **EXACTLY)
    assert model.conditionals(inputs, lengths, inference.latents).posterior == {}


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_the_bound_is_made_of_these_factors_only(tiny_latent, scored, double_noise, scale):
    """Against torch.distributions: nothing clipped, weighted, left out or added. Small weights make KL small."""
    model = copy.deepcopy(tiny_latent.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= scale
    inputs, target, lengths, *_ = scored
    features = model.encode(inputs, lengths)
    inference = model.infer(inputs, lengths, features=features, noise=double_noise(2))
    bound, _ = model(inputs, target, lengths, features=features, noise=double_noise(2))
    if scale < 1:
        assert min(float(series.values[series.mask].min()) for series in bound.kl.values()) < 0.1
    for level, z in inference.latents.items():
        p, q = (
            td.Normal(gaussian.mean, gaussian.std)
            for gaussian in (inference.conditionals.prior[level], inference.conditionals.posterior[level])
        )
        real = bound.kl[level].mask
        torch.testing.assert_close(bound.kl[level].values[real], td.kl_divergence(q, p)[real], **EXACTLY)
        ratio = (q.log_prob(z) - p.log_prob(z)).sum(-1)
        torch.testing.assert_close(bound.log_ratio[level].values[real], ratio[real], **EXACTLY)
    log_likelihood, log_prior = model.log_joint(inputs, target, lengths, inference.latents)
    torch.testing.assert_close(log_likelihood.values, bound.log_likelihood.values, **EXACTLY)
    assert set(log_prior) == set(inference.latents)


def test_factors_in_chunks_are_those_of_the_whole(tiny_latent, scored, double_noise):
    model = tiny_latent.model
    inputs, _, lengths, features, inference = scored
    whole, state = gaussians(inference.conditionals), None
    for start in range(0, FRAMES, model.hop):
        stop = min(start + model.hop, FRAMES)
        part = {
            "inputs": inputs[:, start:stop],
            "lengths": lengths - start,
            "features": slice_features(features, start, stop),
            "state": state,
        }
        latents = {
            level: z[:, start // model.latent_hops[level] : -(-stop // model.latent_hops[level])]
            for level, z in inference.latents.items()
        }
        given = model.conditionals(**part, latents=latents)
        drawn = model.infer(**part, noise=double_noise(2))
        state = drawn.state
        for found in (given, drawn.conditionals):
            parameters = inference.conditionals.parameters[:, start:stop]
            torch.testing.assert_close(found.parameters[0], parameters[0], **EXACTLY)
            real = max(min(22 - start, stop - start), 0)  # beyond a row's end nothing is promised
            torch.testing.assert_close(found.parameters[1, :real], parameters[1, :real], **EXACTLY)
            for (kind, level), gaussian in gaussians(found).items():
                first = start // model.latent_hops[level]
                steps = -(-real // model.latent_hops[level])
                for values, of_whole in zip(vars(gaussian).values(), vars(whole[kind, level]).values(), strict=True):
                    expected = of_whole[:, first : first + values.shape[1]]
                    torch.testing.assert_close(values[0], expected[0], **EXACTLY)
                    torch.testing.assert_close(values[1, :steps], expected[1, :steps], **EXACTLY)
