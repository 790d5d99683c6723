"""The bound is a bound: against the exact log-likelihood of tiny models, by quadrature over all latents.

Every latent has one dimension and there are two or three steps, so the integral of p(x, z) over all latents is a sum
over a grid. The models have been trained for a moment on data with something to infer, and shaken: the posterior is
neither the prior nor the true posterior. The grid is a rectangle rule on a box that holds prior and posterior; a
shifted grid tells its error.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from speechlvm.data.dumps.dataset import Batch, Segment
from speechlvm.distributions.noise import Noise
from speechlvm.models import MODELS, model_class
from speechlvm.models.base import LatentModel
from speechlvm.observation import Observation
from speechlvm.scoring.objective import objective
from speechlvm.scoring.score import score_batch

SYSTEMS = {  # model, settings, frames
    "cwvae_l1": ("cwvae", {"stride": 2, "levels": 1, "width": 1, "blocks": 1}, 6),
    "cwvae_l2": ("cwvae", {"stride": 2, "levels": 2, "factor": 2, "width": 1, "blocks": 1, "prior": "context"}, 4),
    "cwvae_l2_residual": (
        "cwvae",
        {"stride": 2, "levels": 2, "factor": 2, "width": 1, "blocks": 1, "posterior": "residual"},
        4,
    ),
    "cwvae_l1_precision": ("cwvae", {"stride": 2, "levels": 1, "width": 1, "blocks": 1, "posterior": "precision"}, 6),
    "vrnn": ("vrnn", {"stack": 2, "latent": 1, "hidden": 6, "state": 6, "mlp_layers": 2}, 4),
    "srnn": ("srnn", {"stack": 2, "latent": 1, "hidden": 6, "state": 6, "mlp_layers": 2}, 4),
    "srnn_filtering": (
        "srnn",
        {"stack": 2, "latent": 1, "hidden": 6, "state": 6, "mlp_layers": 2, "posterior": "filtering"},
        4,
    ),
    "zforcing": ("zforcing", {"stack": 2, "latent": 1, "hidden": 6, "state": 6, "embedding": 4}, 6),
    "zforcing_normalised": (
        "zforcing",
        {"stack": 2, "latent": 1, "hidden": 6, "state": 6, "embedding": 4}
        | {"conditional_layer_norm": True, "backward_likelihood": True, "initialisation": "plain"},
        4,
    ),
    "stochastic_wavenet": (
        "stochastic_wavenet",
        {"stack": 2, "layers": 2, "stochastic_layers": 2, "channels": 4, "latent_total": 2},
        4,
    ),
    "stochastic_wavenet_top": (
        "stochastic_wavenet",
        {"stack": 2, "layers": 2, "stochastic_layers": 1, "channels": 4, "latent_total": 1},
        6,
    ),
    "stcn": (
        "stcn",
        {"stack": 2, "channels": 4, "latents": [1, 1], "dilations": [1], "output_layers": 1, "dense": False},
        4,
    ),
    "stcn_dense": ("stcn", {"stack": 2, "channels": 4, "latents": [1, 1], "dilations": [1], "output_layers": 1}, 4),
}
POINTS = {2: 200, 3: 64, 4: 28}  # per dimension of the grid, by its dimensions
TRAINED_KL_WEIGHT = 0.7  # so that latents are used
SHAKE = {"vrnn": 0.03, "srnn": 0.03}  # of trained weights; others 0.1
MARGIN = 5.0  # standard deviations around prior and posterior
ROWS_AT_ONCE = 16384
DRAWS = 8192
KS = (1, 8, 64, 512)


@dataclass(frozen=True)
class Trained:
    model: LatentModel
    observation: Observation
    pcm: torch.Tensor  # (1, T)

    @property
    def data(self):
        lengths = torch.tensor([self.pcm.shape[1]])
        return self.observation.inputs(self.pcm, lengths).double(), self.observation.target(self.pcm).double(), lengths

    def repeated(self, rows):
        return [x.expand(rows, *x.shape[1:]) for x in self.data]


def waveforms(rows, frames, seed):
    """Pairs of frames share a random level, and neighbouring levels are correlated."""
    generator = np.random.default_rng(seed)
    levels = generator.standard_normal((rows, frames // 2))
    levels[:, 1:] += 0.7 * levels[:, :-1]
    signal = 0.1 * (0.8 * levels.repeat(2, 1) + 0.6 * generator.standard_normal((rows, frames)))
    return torch.from_numpy(np.rint(signal * 32768).clip(-32768, 32767).astype(np.int16))


@pytest.fixture(scope="module", params=list(SYSTEMS))
def trained(request, build_system):
    name, conf, frames = SYSTEMS[request.param]
    model, observation = build_system(name, conf, "normalised", "gaussian")
    if name == "stcn":  # its latents start narrow and soon become more so, as the past has to pass through them
        for network in (*model.priors, *model.evidence):
            torch.nn.init.zeros_(network.output.bias)
    if name == "cwvae":  # its upper levels start without influence, and would keep it in so few steps
        for level in model.levels[:-1]:
            torch.nn.init.ones_(level.context.weight)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    lengths = torch.full((64,), frames)
    for step in range(25 if name == "stcn" else 100):
        pcm = waveforms(64, frames, step)
        noise = Noise([(step, row) for row in range(64)], dtype=torch.float64)
        inputs, target = observation.inputs(pcm, lengths).double(), observation.target(pcm).double()
        loss = objective(model.score(inputs, target, lengths, noise), 64 * frames, kl_weight=TRAINED_KL_WEIGHT)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += SHAKE.get(name, 0.1) * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return Trained(model.eval().requires_grad_(False), observation, waveforms(1, frames, 1000))


@dataclass(frozen=True)
class Grid:
    """Nodes and their common weight."""

    latents: dict[str, torch.Tensor]  # level -> (N, T_l, 1)
    log_volume: float


def box(trained):
    """Level and step -> (lowest, highest) of what prior and posterior reach."""
    inputs, _, lengths = trained.repeated(500)
    noise = Noise([("box", row) for row in range(500)], dtype=torch.float64)
    inference = trained.model.infer(inputs, lengths, features=trained.model.encode(inputs, lengths), noise=noise)
    generated = trained.model.sample(inputs.shape[1], noise, trained.observation.inputs_of)
    conditionals = [
        trained.model.conditionals(inputs, lengths, latents, features=trained.model.encode(inputs, lengths))
        for latents in (inference.latents, generated.latents)
    ]
    sides = {}
    for level in inference.latents:
        gaussians = [of[level] for given in conditionals for of in (given.prior, given.posterior)]
        low = torch.stack([g.mean - MARGIN * g.std for g in gaussians]).amin((0, 1, 3))
        high = torch.stack([g.mean + MARGIN * g.std for g in gaussians]).amax((0, 1, 3))
        sides.update({(level, t): side for t, side in enumerate(zip(low.tolist(), high.tolist(), strict=True))})
    return sides


def grid(sides, shift):
    """The product of `POINTS` nodes per side, shifted by part of a cell."""
    count = POINTS[len(sides)]
    axes, log_volume = [], 0.0
    for low, high in sides.values():
        cell = (high - low) / count
        axes.append(low + (torch.arange(count, dtype=torch.float64) + shift) * cell)
        log_volume += math.log(cell)
    nodes = dict(zip(sides, torch.cartesian_prod(*axes).unbind(1), strict=True))
    levels = itertools.groupby(sides, key=lambda place: place[0])
    return Grid(
        {level: torch.stack([nodes[place] for place in places], 1).unsqueeze(-1) for level, places in levels},
        log_volume,
    )


def log_joint(trained, nodes):
    """Log p(x, z) and log p(z) where z does not depend on x, else the product of p(z_t | ...): both (N,)."""
    inputs, target, lengths = trained.repeated(len(nodes["z1"]))
    log_likelihood, log_prior = trained.model.log_joint(inputs, target, lengths, nodes)
    prior = sum(series.values.sum(1) for series in log_prior.values())
    return log_likelihood.values.sum(1) + prior, prior


def log_posterior(trained, nodes):
    inputs, _, lengths = trained.repeated(len(nodes["z1"]))
    features = trained.model.encode(inputs, lengths)
    posterior = trained.model.conditionals(inputs, lengths, nodes, features=features).posterior
    return sum(posterior[level].log_prob(z).flatten(1).sum(1) for level, z in nodes.items())


def on_grid(function, trained, nodes):
    count = len(nodes.latents["z1"])
    parts = [
        function(trained, {level: z[start : start + ROWS_AT_ONCE] for level, z in nodes.latents.items()})
        for start in range(0, count, ROWS_AT_ONCE)
    ]
    if isinstance(parts[0], tuple):
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))
    return torch.cat(parts)


@pytest.fixture(scope="module")
def quadrature(trained):
    """Log p(x), the ELBO, and the evidence that both are what they are called."""
    sides = box(trained)
    nodes = grid(sides, 0.5)
    joint, prior = on_grid(log_joint, trained, nodes)
    posterior = on_grid(log_posterior, trained, nodes)
    shifted = grid(sides, 0.0)
    joint_shifted, _ = on_grid(log_joint, trained, shifted)
    q = (posterior + nodes.log_volume).exp()
    return {
        "log p(x)": float(joint.logsumexp(0)) + nodes.log_volume,
        "error": abs(float(joint_shifted.logsumexp(0) - joint.logsumexp(0))),
        "log of the prior's mass": float(prior.logsumexp(0)) + nodes.log_volume,
        "posterior's mass": float(q.sum()),
        "elbo": float((q * (joint - posterior)).sum()),
    }


@pytest.fixture(scope="module")
def draws(trained):
    """Bounds of independent draws of the latents: per draw (N,) ELBO, log-weight, KL and log-ratio by level."""
    inputs, target, lengths = trained.repeated(DRAWS)
    noise = Noise([("draw", row) for row in range(DRAWS)], dtype=torch.float64)
    bound = trained.model.score(inputs, target, lengths, noise)
    likelihood = bound.log_likelihood.values.sum(1)
    divergence = {level: series.values.flatten(1).sum(1) for level, series in bound.kl.items()}
    ratio = {level: series.values.sum(1) for level, series in bound.log_ratio.items()}
    return likelihood - sum(divergence.values()), likelihood - sum(ratio.values()), divergence, ratio


def standard_error(values):
    return float(values.std()) / math.sqrt(len(values))


def test_every_model_with_latents_is_here():
    assert {name for name, _, _ in SYSTEMS.values()} == {n for n in MODELS if model_class(n).bound == "elbo"}


def test_the_quadrature_is_exact(quadrature):
    """The kinks of leaky ReLUs leave an error, mostly below 1e-4 nats; it is small beside what is to be seen."""
    assert quadrature["error"] < 3e-3
    assert quadrature["error"] < 0.02 * (quadrature["log p(x)"] - quadrature["elbo"])
    assert quadrature["log of the prior's mass"] == pytest.approx(0.0, abs=1e-4)
    assert quadrature["posterior's mass"] == pytest.approx(1.0, abs=1e-4)


def test_the_elbo_lies_below_and_is_that_of_quadrature(quadrature, draws):
    elbo = draws[0]
    assert float(elbo.mean()) < quadrature["log p(x)"] - 3 * standard_error(elbo)
    assert quadrature["log p(x)"] - quadrature["elbo"] > 0.03  # the posterior is not the true one
    assert abs(float(elbo.mean()) - quadrature["elbo"]) < 4 * standard_error(elbo) + quadrature["error"]


def test_kl_terms_are_the_means_of_their_log_ratios(draws):
    _, _, divergence, ratio = draws
    for level, analytic in divergence.items():
        difference = ratio[level] - analytic
        assert float(analytic.mean()) > 0.001
        assert abs(float(difference.mean())) < 4 * standard_error(difference)


def test_weights_estimate_the_likelihood_without_bias(quadrature, draws):
    weights = (draws[1] - quadrature["log p(x)"]).exp()
    assert abs(float(weights.mean()) - 1) < 4 * standard_error(weights) + quadrature["error"]
    assert standard_error(weights) < 0.1


def test_the_importance_weighted_bound_rises_towards_the_likelihood(trained, quadrature):
    exact, frames, gaps, errors = quadrature["log p(x)"], trained.pcm.shape[1], {}, {}
    for samples in KS:
        rows = DRAWS // samples
        segments = tuple(Segment(f"copy{row}", 0, frames) for row in range(rows))
        batch = Batch(segments, trained.pcm.expand(rows, -1), torch.full((rows,), frames))
        scores = score_batch(trained.model, trained.observation, batch, 10**6, samples=samples)
        bounds = torch.tensor([score.nats for score in scores], dtype=torch.float64)
        gaps[samples], errors[samples] = exact - float(bounds.mean()), standard_error(bounds)
        assert gaps[samples] > -3 * errors[samples] - quadrature["error"]
    assert gaps[1] > gaps[8] > gaps[64]
    assert gaps[8] < 0.5 * gaps[1]
    assert abs(gaps[512]) < 0.1 * gaps[1] + 3 * errors[512]
