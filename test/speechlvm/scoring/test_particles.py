"""FIVO on a linear Gaussian state space model, whose likelihood a Kalman filter gives exactly."""

import math

import pytest
import torch
from torch import nn

from speechlvm.data.dumps.dataset import Batch, Segment
from speechlvm.distributions.gaussian import Gaussian
from speechlvm.distributions.latent import DiagonalGaussian, precision_weighted
from speechlvm.distributions.noise import Noise
from speechlvm.models.base import LatentModel
from speechlvm.models.bound import Conditionals, Inference
from speechlvm.observation import VectorObservation
from speechlvm.scoring.particles import Particles, systematic_ancestors
from speechlvm.scoring.score import score_batch

DECAY, INNOVATION, NOISE = 0.9, 0.5, 0.3
WIDENED = 1.5
FRAMES, RUNS = 50, 400
OBSERVATION = VectorObservation({"x": "real"}, [0.0], [1.0])


class LinearGaussian(LatentModel):
    """z_1 ~ N(0, 1), z_t = 0.9 z_{t-1} + 0.5 e, x_t = z_t + 0.3 e'.

    q is the prior, or has the mean of the exact p(z_t | z_{t-1}, x_t) and 1.5 times its variance.
    """

    follow = _sample = None

    def __init__(self, informed=True):
        super().__init__()
        self.informed = informed
        self.distribution = Gaussian(minimum_std=0.0)
        self.channels = self.stack = self.hop = 1
        self.latent_hops = self.latent_sizes = {"z1": 1}
        self.decay = nn.Parameter(torch.tensor(DECAY, dtype=torch.float64))

    def initial_state(self, batch):
        return {"z": torch.zeros(batch, 1, dtype=torch.float64), "frames": torch.zeros(batch, dtype=torch.int64)}

    def infer(self, inputs, lengths, *, features, noise, state=None, decode=True):
        batch, frames, _ = inputs.shape
        state = self.start(state, batch)
        first = self.frames_seen(state, batch)
        normal = self.draw_noise(noise, "z1", first, frames)
        z, latents, factors = state["z"], [], []
        for t in range(frames):
            prior = DiagonalGaussian(self.decay * z, torch.full_like(z, INNOVATION if first + t else 1.0))
            posterior = prior
            if self.informed:
                exact = precision_weighted(prior, DiagonalGaussian(inputs[:, t], torch.full_like(z, NOISE)))
                posterior = DiagonalGaussian(exact.mean, math.sqrt(WIDENED) * exact.std)
            z = posterior.sample(normal[:, t])
            latents.append(z)
            factors.append((prior, posterior))
        prior, posterior = (
            {"z1": DiagonalGaussian(*(torch.stack([getattr(f, name) for f in each], 1) for name in ("mean", "std")))}
            for each in zip(*factors, strict=True)
        )
        joined = torch.stack(latents, 1)
        parameters = torch.cat([joined, torch.full_like(joined, math.log(NOISE))], -1)
        after = {"z": z, "frames": state["frames"] + frames}
        return Inference({"z1": joined}, Conditionals(parameters, prior, posterior), after)


def signal(frames):
    t = torch.arange(1, frames + 1, dtype=torch.float64)
    return torch.sin(0.7 * t) + 0.5 * torch.cos(1.9 * t)


def exact(frames):
    """log p(x) by the Kalman filter."""
    mean, variance, total = 0.0, 1.0, 0.0
    for x in signal(frames).tolist():
        spread = variance + NOISE**2
        total -= 0.5 * (math.log(2 * math.pi * spread) + (x - mean) ** 2 / spread)
        gain = variance / spread
        mean, variance = DECAY * (mean + gain * (x - mean)), DECAY**2 * (1 - gain) * variance + INNOVATION**2
    return total


def scores(runs, samples, resample, frames=FRAMES, informed=True):
    """Nats (runs,) of the signal, each from noise of its own."""
    segments = tuple(Segment(f"run{run}", 0, frames) for run in range(runs))
    batch = Batch(segments, signal(frames).expand(runs, -1).unsqueeze(-1), torch.full((runs,), frames))
    found = score_batch(LinearGaussian(informed), OBSERVATION, batch, 10**6, samples=samples, resample=resample)
    return torch.tensor([score.nats for score in found], dtype=torch.float64)


def standard_error(values):
    return float(values.std()) / math.sqrt(len(values))


def test_the_kalman_filter_gives_the_known_likelihoods():
    known = {1: -1.068851513, 2: -1.583242833, 5: -6.466395836, 50: -56.363181643}
    assert {frames: exact(frames) for frames in known} == pytest.approx(known, abs=1e-9)


@pytest.mark.parametrize(
    ("resample", "informed", "known", "error"),
    [
        (True, True, {4: -2.66, 16: -0.57}, 0.04),
        (False, True, {4: -6.00, 16: -3.44}, 0.04),
        (True, False, {4: -59.5, 16: -9.33}, 1.0),
        (False, False, {4: -275, 16: -204}, 1.0),
    ],
    ids=["fivo", "iwae", "fivo from the prior", "iwae from the prior"],
)
def test_bounds_lie_below_the_likelihood_by_what_is_known(resample, informed, known, error):
    """Known: means of 8000 runs of another implementation, in numpy, with at most these standard errors."""
    for particles, gap in known.items():
        gaps = scores(RUNS, particles, resample, informed=informed) - exact(FRAMES)
        assert abs(float(gaps.mean()) - gap) < 4 * math.hypot(standard_error(gaps), error)
        assert float(gaps.mean()) < -3 * standard_error(gaps)


def test_more_particles_are_tighter_and_long_sequences_need_resampling():
    frames = 200
    elbo, four, sixteen = (scores(100, k, resample=True, frames=frames) for k in (1, 4, 16))
    weighted = scores(100, 16, resample=False, frames=frames)
    assert float(elbo.mean()) + 4 < float(weighted.mean())
    assert float(weighted.mean()) + 4 < float(four.mean())
    assert float(four.mean()) + 4 < float(sixteen.mean()) < exact(frames)


def test_the_likelihood_is_estimated_without_bias():
    ratios = (scores(RUNS, 16, resample=True) - exact(FRAMES)).exp()
    assert abs(float(ratios.mean()) - 1) < 4 * standard_error(ratios)
    assert standard_error(ratios) < 0.1


def test_one_particle_is_the_sampled_elbo_and_two_are_importance_weights():
    frames, noise = 5, Noise([(0, "score", "run0", 0)], dtype=torch.float64)
    x = signal(frames).view(1, -1, 1)
    bound = LinearGaussian().score(x, x, torch.tensor([frames]), noise)
    sampled = float((bound.log_likelihood.values.sum() - bound.log_ratio["z1"].values.sum()).detach())
    assert float(scores(1, 1, resample=True, frames=frames)) == pytest.approx(sampled, rel=1e-12)
    two = [scores(1, 2, resample, frames=frames) for resample in (True, False)]  # never quite degenerate
    torch.testing.assert_close(*two, rtol=1e-12, atol=0)


def test_chunks_batches_and_padding_change_nothing():
    lengths = [50, 20, 1]
    data = torch.zeros(3, 50, 1, dtype=torch.float64)
    for row, length in enumerate(lengths):
        data[row, :length, 0] = signal(length)
    segments = tuple(Segment(f"u{row}", 0, length) for row, length in enumerate(lengths))

    def nats(rows, chunk):
        longest = max(lengths[row] for row in rows)
        batch = Batch(
            tuple(segments[row] for row in rows), data[rows][:, :longest], torch.tensor([lengths[row] for row in rows])
        )
        found = score_batch(LinearGaussian(), OBSERVATION, batch, chunk, samples=8, resample=True)
        return {score.utterance: score.nats for score in found}

    together = nats([0, 1, 2], 10**6)
    assert nats([2, 0, 1], 7) == pytest.approx(together, rel=1e-12)
    for row in range(3):
        assert nats([row], 3) == pytest.approx({f"u{row}": together[f"u{row}"]}, rel=1e-12)


def test_gradients_go_through_weights_and_copied_states():
    def total(decay):
        model = LinearGaussian()
        model.decay.data.fill_(decay)
        x = signal(FRAMES).expand(5, -1).unsqueeze(-1)
        particles = Particles(model, Noise([(run,) for run in range(5)], dtype=torch.float64), 8, resample=True)
        particles.add(x, x, torch.full((5,), FRAMES), {})
        return particles.nats.sum(), model.decay

    nats, decay = total(DECAY)
    nats.backward()
    slope = (total(DECAY + 1e-6)[0] - total(DECAY - 1e-6)[0]) / 2e-6  # with the same ancestors
    assert float(decay.grad) == pytest.approx(float(slope.detach()), rel=1e-4)


def test_ancestors_are_systematic():
    weights = torch.tensor([[0.5, 0.25, 0.25, 0.0], [0.0, 0.1, 0.6, 0.3]], dtype=torch.float64)
    places = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    counts = torch.stack(
        [
            torch.stack([torch.bincount(row, minlength=4) for row in systematic_ancestors(weights, u.expand(2, 1))])
            for u in places
        ]
    )
    assert (counts.sum(-1) == 4).all()
    assert ((counts >= (4 * weights).floor()) & (counts <= (4 * weights).ceil())).all()
    torch.testing.assert_close(counts.double().mean(0), 4 * weights, rtol=0, atol=2e-3)
