"""Training starts at the marginal of its data, however narrow its parts are, and goes down from there."""

import numpy as np
import pytest
import torch

from speechlvm.distributions import build_distribution
from speechlvm.distributions.noise import Noise
from speechlvm.models import build_model
from speechlvm.observation import AudioObservation, Statistics, VectorObservation
from speechlvm.scoring.objective import objective

ROWS, FRAMES = 4, 96
LSTM = ("lstm", {"stack": 4, "hidden": 6, "layers": 2, "mlp_layers": 1})
CWVAE = ("cwvae", {"stride": 4, "levels": 1, "width": 5, "blocks": 1})


def _speech():
    """(ROWS, FRAMES) PCM values of a voice: pulses through a resonance."""
    generator = np.random.default_rng(0)
    time = np.arange(FRAMES)
    voice = 3000 * np.sin(time / 3) * np.exp(-(time % 32) / 10)
    return np.rint(voice + 100 * generator.standard_normal((ROWS, FRAMES))).astype(int)


def _gated():
    return np.where(np.arange(FRAMES) < 0.6 * FRAMES, 0, _speech())


AUDIO = {
    "gated": _gated(),
    "clipped": (20 * _speech()).clip(-32768, 32767),
    "lead-in": np.where(np.arange(FRAMES) < 0.3 * FRAMES, -137, _speech()),
    "offset": 7000 + _speech() // 8,
    "8 bits": 256 * (_speech() // 256),
    "square": np.where(_speech() > 0, 12000, -12000),
    "silence": np.zeros((ROWS, FRAMES), int),
}


class Start:
    """A model at the marginal of raw data (ROWS, FRAMES, ...), and the data as it sees them."""

    def __init__(self, system, observation, distribution, conf, raw, frames):
        name, sizes = system
        torch.manual_seed(0)
        self.model = build_model(
            name, sizes, len(observation.kinds), build_distribution(distribution, conf, observation)
        )
        targets, counts = observation.marginal(frames)
        parameters = self.model.distribution.initial_bias(targets, counts)
        self.model.initialise_output(parameters)
        log_prob = self.model.distribution.log_prob(parameters.float().expand(len(targets), -1), targets)
        self.marginal = -float((log_prob.double() * counts).sum() / counts.sum())
        self.lengths = torch.full((ROWS,), FRAMES)
        self.inputs, self.target = observation.inputs(raw, self.lengths), observation.target(raw)

    def bound(self, step):
        noise = Noise([(step, row) for row in range(ROWS)])
        return self.model.score(self.inputs, self.target, self.lengths, noise)

    def nats(self, bound):
        """Cost of a frame at the latents that were drawn."""
        return -float(bound.log_likelihood.values.detach().mean())

    def costs(self, steps, rate):
        """Cost of a frame, without the latents' divergence, before each step of Adam."""
        optimizer = torch.optim.Adam(self.model.parameters(), lr=rate)
        for step in range(steps):
            bound = self.bound(step)
            yield self.nats(bound)
            optimizer.zero_grad()
            objective(bound, ROWS * FRAMES, auxiliary_weights=dict.fromkeys(bound.auxiliary, 1.0)).backward()
            assert step == 0 or all(parameter.grad.any() for parameter in self.model.parameters())
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimizer.step()


def of_audio(system, pcm, coding="mulaw", distribution="dmol", conf=None):
    statistics = Statistics(float(pcm.mean()) / 32768, float(pcm.std()) / 32768 or 1.0)
    histogram = np.bincount(pcm.reshape(-1) + 32768, minlength=65536)
    raw = torch.from_numpy(pcm.astype(np.int16))
    return Start(system, AudioObservation(coding, statistics), distribution, conf or {}, raw, histogram)


def of_pens(system, distribution="bernoulli_bivariate", conf=None):
    """Points of which half do not move, and the others along a line."""
    generator = np.random.default_rng(0)
    moves = generator.standard_normal((ROWS, FRAMES)) * (np.arange(FRAMES) % 20 < 10)
    raw = np.stack([moves > 1, moves, 0.5 * moves], -1).astype(np.float32)
    means, stds = raw[..., 1:].mean((0, 1)).tolist(), raw[..., 1:].std((0, 1)).tolist()
    observation = VectorObservation({"pen": "binary", "dx": "real", "dy": "real"}, [0.0, *means], [1.0, *stds])
    return Start(system, observation, distribution, conf or {}, torch.from_numpy(raw), raw.reshape(-1, 3))


def test_a_point_mass_is_kept_from_the_first_step_on(named_system):
    start = of_audio(named_system, AUDIO["gated"])
    costs = list(start.costs(12, 3e-3))
    assert costs[0] < start.marginal + 0.07
    assert max(costs) < start.marginal + 0.07
    assert np.mean(costs[-4:]) < start.marginal


@pytest.mark.parametrize("coding", ["mulaw", "linear"])
@pytest.mark.parametrize("name", list(AUDIO))
def test_any_marginal_is_where_it_starts(name, coding):
    for system in (LSTM, CWVAE):
        start = of_audio(system, AUDIO[name], coding)
        with torch.no_grad():
            assert start.nats(start.bound(0)) == pytest.approx(start.marginal, abs=0.07)


OUTPUTS = {
    "categorical": lambda: of_audio(LSTM, AUDIO["gated"], "mulaw8", "categorical"),
    "gaussian": lambda: of_audio(LSTM, AUDIO["gated"], "normalised", "gaussian"),
    "gmm": lambda: of_audio(LSTM, AUDIO["gated"], "normalised", "gmm", {"components": 4, "minimum_std": 0.0}),
    "gmm of vectors": lambda: of_pens(LSTM, "gmm", {"components": 4, "minimum_std": 0.0}),
    "pen": lambda: of_pens(LSTM, conf={"components": 4, "minimum_std": 0.0}),
    "uncorrelated pen": lambda: of_pens(LSTM, conf={"components": 4, "minimum_std": 0.0, "correlated": False}),
}


@pytest.mark.parametrize("name", list(OUTPUTS))
def test_outputs_of_every_kind_start_there_and_get_better(name):
    start = OUTPUTS[name]()
    costs = list(start.costs(12, 3e-3))
    assert costs[0] == pytest.approx(start.marginal, abs=0.07)
    assert max(costs) < start.marginal + 0.07 and costs[-1] < costs[0]
