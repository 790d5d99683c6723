"""CW-VAE: masks, how far posteriors and priors see, reconstruction, lower precision, settings."""

import math

import pytest
import torch
from pydantic import ValidationError

from speechlvm.coding import build_coding
from speechlvm.distributions.dmol import DiscretizedLogisticMixture
from speechlvm.distributions.noise import Noise
from speechlvm.models import build_model
from speechlvm.modules.frames import frame_mask

WIDTH = 5


@pytest.fixture(scope="module")
def coding():
    return build_coding("mulaw8")


def make_model(coding, levels=2, seed=0, dtype=torch.float64, **settings):
    """A small model whose weights are large enough for everything to matter."""
    torch.manual_seed(seed)
    distribution = DiscretizedLogisticMixture(coding.edges, components=2)
    settings = {"stride": 6, "levels": levels, "factor": 3, "width": WIDTH, "blocks": 1, **settings}
    model = build_model("cwvae", settings, 1, distribution).to(dtype)
    with torch.no_grad():
        for level in model.levels:
            for layer in (level.prior_output, level.posterior_output, level.posterior_direct):
                layer.weight.mul_(10)
            for path in (level.context, level.prior_direct):
                if path is not None:
                    path.weight.normal_(std=0.5)
    return model


def make_batch(coding, lengths, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor(lengths)
    frames = int(lengths.max())
    target = torch.randint(0, coding.size, (len(lengths), frames, 1), generator=generator)
    target = target * frame_mask(lengths, frames).unsqueeze(-1)
    inputs = torch.from_numpy(coding.values)[target].to(dtype) * frame_mask(lengths, frames).unsqueeze(-1)
    return inputs, target, lengths


def make_noise(rows, dtype=torch.float64):
    return Noise([("utterance", row) for row in rows], dtype=dtype)


def totals(bound):
    """Nats per row: log-likelihood, every level's KL and log-ratio."""
    series = [bound.log_likelihood, *bound.kl.values(), *bound.log_ratio.values()]
    return torch.stack([s.values.flatten(1).sum(1) for s in series], 1)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_shapes_and_masks(coding, levels):
    model = make_model(coding, levels)
    inputs, target, lengths = make_batch(coding, [70, 13])
    bound = model.score(inputs, target, lengths, make_noise(range(2)))
    assert bound.log_likelihood.values.shape == (2, 70)
    assert bound.log_likelihood.values[1, 13:].abs().max() == 0
    assert (bound.log_likelihood.values[1, :13] < 0).all()
    assert list(bound.kl) == [f"z{l}" for l in range(1, levels + 1)]
    for l, series in enumerate(bound.kl.values()):
        hop = 6 * 3**l
        assert series.hop == hop
        assert series.values.shape == (2, math.ceil(70 / hop), WIDTH)
        paid = math.ceil(13 / hop)  # a partial last step pays in full
        assert (series.values[1, :paid] > 0).all()
        assert series.values[1, paid:].abs().sum() == 0
        assert bound.log_ratio[f"z{l + 1}"].values[1, paid:].abs().sum() == 0


def test_float32_is_close_to_float64(coding):
    inputs, target, lengths = make_batch(coding, [200])
    exact = make_model(coding).score(inputs, target, lengths, make_noise([0]))
    single = make_model(coding).float()
    single = single.score(inputs.float(), target, lengths, make_noise([0], torch.float32))
    assert (totals(exact) - totals(single)).abs().max() < 200 * 1e-5


@pytest.mark.parametrize(("level", "step"), [(1, 6), (2, 2)])
@pytest.mark.parametrize(("span", "prior"), [("halo", "context"), ("strict", "state")])
def test_posterior_sees_no_later_than_its_span_and_prior_only_the_past(coding, level, step, span, prior):
    model = make_model(coding, 2, span=span, prior=prior)
    frames = 36 * 6
    inputs, _, lengths = make_batch(coding, [frames])
    inputs.requires_grad_()
    inference = model.infer(inputs, lengths, features=model.encode(inputs, lengths), noise=make_noise([0]))
    hop = model.hops[level - 1]
    reach = model.encoder.halo_frames

    def latest(value):
        (gradient,) = torch.autograd.grad(value.sum(), inputs, retain_graph=True)
        return int(gradient[0, :, 0].nonzero().max())

    # the level's own span and that of the step above that covers it
    own = (step + 1) * hop - 1 + reach[level - 1]
    above = -1 if level == 2 else (step * hop // model.hops[1] + 1) * model.hops[1] - 1 + reach[1]
    assert latest(inference.conditionals.posterior[f"z{level}"].mean[:, step]) == max(own, above)
    before = step * hop - 1 + reach[level - 1]
    assert latest(inference.conditionals.prior[f"z{level}"].mean[:, step]) == max(before, above)


def test_reconstruction_gives_the_parameters_that_scoring_uses(coding):
    model = make_model(coding, 2)
    inputs, target, lengths = make_batch(coding, [50, 20])
    parameters = model.reconstruct(inputs, lengths, make_noise(range(2)))
    assert parameters.shape == (2, 50, model.distribution.parameter_size)
    bound = model.score(inputs, target, lengths, make_noise(range(2)))
    log_prob = model.distribution.log_prob(parameters, target) * frame_mask(lengths, 50)
    torch.testing.assert_close(log_prob, bound.log_likelihood.values, rtol=0, atol=1e-10)


def test_bfloat16_autocast_is_close(coding):
    model = make_model(coding, 2, dtype=torch.float32)
    inputs, target, lengths = make_batch(coding, [200], torch.float32)
    noise = make_noise([0], torch.float32)
    exact = totals(model.score(inputs, target, lengths, noise))
    with torch.autocast("cpu", torch.bfloat16):
        bound = model.score(inputs, target, lengths, noise)
    assert bound.log_likelihood.values.dtype == torch.float32
    assert all(series.values.dtype == torch.float32 for series in bound.kl.values())
    torch.testing.assert_close(totals(bound), exact, rtol=0.02, atol=0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stride": 22}, "stride 22: not a product of convolution strides from 2 to 8.*for instance 21 or 24"),
        ({"factor": 11}, "factor 11: not a product .* for instance 10 or 12"),
        ({"stride": 1}, "greater than or equal to 2"),
        ({"levels": 0}, "greater than or equal to 1"),
        ({"levels": 9}, "less than or equal to 4"),
        ({"width": -3}, "greater than or equal to 1"),
        ({"posterior": "iaf"}, "'plain', 'residual' or 'precision'"),
        ({"span": "wide"}, "'halo' or 'strict'"),
        ({"stripe": 64}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_settings_are_refused(coding, settings, message):
    with pytest.raises(ValidationError, match=message):
        make_model(coding, **{"levels": 1, **settings})


def test_residual_posterior_adds_the_prior_mean(coding):
    """Fraccaro et al. 2016: mu_q = mu_p + delta; the standard deviation is the network's own."""
    torch.manual_seed(0)
    z, h, noise, evidence = (torch.randn(2, *shape, dtype=torch.float64) for shape in [(WIDTH,)] * 2 + [(1, WIDTH)] * 2)
    residual, plain = (make_model(coding, 1, posterior=kind).levels[0] for kind in ("residual", "plain"))
    with torch.no_grad():
        residual.prior_output.bias.normal_()
    plain.load_state_dict(residual.state_dict())
    one, other = (level.infer(evidence, None, noise, z, h) for level in (residual, plain))
    shift = residual.prior(one.h, None).mean
    assert shift.abs().min() > 0
    torch.testing.assert_close(one.distribution.mean, other.distribution.mean + shift, rtol=0, atol=1e-12)
    torch.testing.assert_close(one.distribution.std, other.distribution.std, rtol=0, atol=1e-12)
