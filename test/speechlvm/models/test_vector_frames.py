"""Every system on frames of several channels: what holds for audio holds for pen points."""

import pytest
import torch

from speechlvm.data.dumps.dataset import Batch, Segment
from speechlvm.models.base import LatentModel
from speechlvm.scoring.score import score_batch

LENGTHS = [37, 21]


@pytest.fixture(scope="module")
def pens():
    """(2, 37, 3): pen and offsets in the units of the data."""
    generator = torch.Generator().manual_seed(5)
    pen = (torch.rand(2, 37, 1, generator=generator) < 0.2).float()
    return torch.cat([pen, 10 * torch.randn(2, 37, 2, generator=generator)], -1)


def nats(system, data, lengths, chunk=10**6):
    segments = tuple(Segment(f"u{row}", 0, length) for row, length in enumerate(lengths))
    batch = Batch(segments, data, torch.tensor(lengths))
    return [score.nats for score in score_batch(system.model, system.observation, batch, chunk)]


def test_chunks_and_padding_change_nothing(tiny_of_pens, pens):
    whole = nats(tiny_of_pens, pens, LENGTHS)
    assert all(abs(value) > 1 for value in whole)
    assert nats(tiny_of_pens, pens, LENGTHS, chunk=8) == pytest.approx(whole, rel=1e-9)
    garbage = pens.clone()
    garbage[1, 21:] = 77.0
    assert nats(tiny_of_pens, garbage, LENGTHS) == pytest.approx(whole, rel=1e-9)


def test_every_channel_of_every_frame_is_paid_for(tiny_of_pens, pens):
    base = nats(tiny_of_pens, pens, LENGTHS)[0]
    for frame in (0, 36):
        for channel in range(3):
            changed = pens.clone()
            changed[0, frame, channel] = 1 - changed[0, frame, channel]
            assert abs(nats(tiny_of_pens, changed, LENGTHS)[0] - base) > 1e-5, (frame, channel)


def test_no_frame_sees_its_own_channels(tiny_of_pens, pens, double_noise):
    model, observation = tiny_of_pens.model, tiny_of_pens.observation
    lengths = torch.tensor([37])
    inputs, target = observation.inputs(pens[:1], lengths).double(), observation.target(pens[:1]).double()
    latents = {}
    if isinstance(model, LatentModel):
        features = model.encode(inputs, lengths)
        latents = model.infer(inputs, lengths, features=features, noise=double_noise(1)).latents
    inputs = inputs.clone().requires_grad_()
    joint = (
        model.log_joint(inputs, target, lengths, latents)[0]
        if latents
        else model(inputs, target, lengths)[0].log_likelihood
    )
    values = joint.values
    if not values.requires_grad:
        assert latents  # no path from x to x at all
        return
    step = slice(5 * model.stack, 6 * model.stack)
    (gradient,) = torch.autograd.grad(values[0, step].sum(), inputs)
    assert not gradient[0, step.start :].any()
    if not latents:
        assert gradient[0, : step.start].any(0).all()  # all channels of the past count


def test_sampled_frames_score_what_was_collected(tiny_of_pens, double_noise):
    model, observation = tiny_of_pens.model, tiny_of_pens.observation
    samples = model.sample(18, double_noise(2), observation.inputs_of)
    assert samples.target.shape == (2, 18, 3) and set(samples.target[..., 0].unique().tolist()) <= {0.0, 1.0}
    lengths = torch.tensor([18, 18])
    inputs = observation.inputs_of(samples.target)
    if isinstance(model, LatentModel):
        likelihood, prior = model.log_joint(inputs, samples.target, lengths, samples.latents)
        for level, values in samples.log_prior.items():
            torch.testing.assert_close(prior[level].values, values, rtol=1e-8, atol=1e-8)
    else:
        likelihood = model.score(inputs, samples.target, lengths).log_likelihood
    torch.testing.assert_close(likelihood.values, samples.log_likelihood, rtol=1e-8, atol=1e-8)
    decoded = observation.decode(samples.target)
    torch.testing.assert_close(observation.target(decoded).double(), samples.target, rtol=1e-4, atol=1e-4)
