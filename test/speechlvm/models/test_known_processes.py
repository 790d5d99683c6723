"""Learning from processes whose entropy is known.

An autoregressive process of integers, x_t = round(a x_{t-1} + b x_{t-2} + e_t) with Gaussian e_t: given its past, x_t
is a Gaussian rounded to integers, whatever the offset of its mean. With a standard deviation of 1000 integers its
entropy is that of the Gaussian, 0.5 log2(2 pi e 1000^2) = 12.013 bits, with an error far below any float (of the order
of exp(-2 pi^2 1000^2)). This is the entropy rate. Who sees only x_{t-1} needs 0.74 bits more (6 %), who sees nothing
1.9 (16 %), so that 2 % is not had for nothing.

A random level per step, x = level + noise: frames of a step are dependent only through what they share, so that models
whose frames are independent given the past must use their latents; the exact likelihood is a Gaussian's.

Networks have 16 units and see 400 000 frames or more in 200 steps; one thread needs a few seconds for each system.
"""

import math

import numpy as np
import pytest
import torch

from speechlvm.distributions.noise import Noise
from speechlvm.models import MODELS
from speechlvm.models.bound import Conditionals, Inference
from speechlvm.scoring.objective import objective, row_terms

A, B, INNOVATION = 1.6, -0.8, 1000.0  # in PCM values; poles of modulus 0.89
ENTROPY_BITS = 0.5 * math.log2(2 * math.pi * math.e * INNOVATION**2)

AUTOREGRESSIVE = {
    "lstm": {"stack": 1, "hidden": 16, "mlp_layers": 1},
    "wavenet": {"stack": 1, "channels": 16, "layers_per_block": 3, "blocks": 1},
    "vrnn": {"stack": 1, "latent": 2, "hidden": 16, "state": 16, "mlp_layers": 2},
    "srnn": {"stack": 1, "latent": 2, "hidden": 16, "state": 16, "mlp_layers": 2},
    "zforcing": {"stack": 1, "latent": 2, "hidden": 16, "state": 16, "embedding": 16},
    "stochastic_wavenet": {"stack": 1, "layers": 3, "stochastic_layers": 2, "channels": 16, "latent_total": 4},
    "stcn": {"stack": 1, "channels": 16, "latents": [4, 2], "dilations": [1, 2], "output_layers": 1},
}


def test_every_model_learns_here():
    assert {*AUTOREGRESSIVE, *LATENT} == set(MODELS)


def autoregression(rows, frames, seed):
    """(rows, frames) int16, from the stationary distribution (200 frames are thrown away), and its code length.

    The code length (rows, frames) in bits is that of the process itself, given two frames before the first.
    """
    generator = np.random.default_rng(seed)
    x = np.zeros((rows, frames + 200), dtype=np.int64)
    surprise = np.zeros(x.shape)
    for t in range(2, x.shape[1]):
        mean = A * x[:, t - 1] + B * x[:, t - 2]
        x[:, t] = np.rint(mean + INNOVATION * generator.standard_normal(rows))
        surprise[:, t] = ((x[:, t] - mean) / INNOVATION) ** 2
    bits = ENTROPY_BITS + 0.5 * math.log2(math.e) * (surprise - 1.0)
    assert abs(x).max() < 32768
    return torch.from_numpy(x[:, 200:].astype(np.int16)), bits[:, 200:]


def nats(model, observation, pcm, key):
    """Bound of every row."""
    lengths = torch.full((len(pcm),), pcm.shape[1])
    noise = Noise([(key, row) for row in range(len(pcm))])
    with torch.no_grad():
        terms = row_terms(model.score(observation.inputs(pcm, lengths), observation.target(pcm), lengths, noise))
    return terms["log_likelihood"] - sum(value for name, value in terms.items() if name.startswith("kl_"))


def train(model, observation, data, steps, rate=1e-2):
    """Adam on data(step) -> PCM; the rate falls to zero along a cosine, and KL costs in full after half of the time.

    Otherwise some systems give their latents up before they know what to do with them.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        pcm = data(step)
        lengths = torch.full((len(pcm),), pcm.shape[1])
        noise = Noise([("train", step, row) for row in range(len(pcm))])
        bound = model.score(observation.inputs(pcm, lengths), observation.target(pcm), lengths, noise)
        optimizer.zero_grad()
        objective(bound, pcm.numel(), kl_weight=min(1.0, 2 * step / steps)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def start(build_system, name, conf, pcm):
    """A model in float32 at the marginal of the data, under the linear coding with two logistics."""
    model, observation = build_system(name, conf, "linear", "dmol", {"components": 2})
    histogram = np.bincount(pcm.numpy().reshape(-1).astype(int) + 32768, minlength=65536)
    model.float().initialise_output(model.distribution.initial_bias(*observation.marginal(histogram)))
    return model, observation


@pytest.mark.parametrize("name", list(AUTOREGRESSIVE))
def test_the_entropy_rate_is_reached(name, build_system):
    pcm, _ = autoregression(512, 64, seed=1)
    model, observation = start(build_system, name, AUTOREGRESSIVE[name], pcm)
    shuffled = np.random.default_rng(0)
    train(model, observation, lambda step: pcm[shuffled.integers(0, len(pcm), 32)], 200)
    test, bits = autoregression(128, 200, seed=2)
    cost = -nats(model, observation, test, "test").numpy() / math.log(2) / 200
    own = bits.mean(1)
    assert cost.mean() < 1.02 * ENTROPY_BITS
    # nobody does better than the process itself, which here also knows two frames before the first
    assert (cost - own).mean() > -3 * (cost - own).std() / math.sqrt(len(own))


STACK, LEVEL, NOISE = 16, 5000.0, 1250.0  # frames per step; standard deviations in PCM values
LATENT = {
    "vrnn": {"stack": STACK, "latent": 2, "hidden": 16, "state": 16, "mlp_layers": 2},
    "srnn": {"stack": STACK, "latent": 2, "hidden": 16, "state": 16, "mlp_layers": 2},
    "zforcing": {"stack": STACK, "latent": 2, "hidden": 16, "state": 16, "embedding": 16},
    "cwvae": {"stride": STACK, "levels": 1, "width": 8, "blocks": 0},
    "stochastic_wavenet": {"stack": STACK, "layers": 2, "stochastic_layers": 2, "channels": 16, "latent_total": 4},
    "stcn": {"stack": STACK, "channels": 16, "latents": [4, 2], "dilations": [1, 2], "output_layers": 1},
}


def levels(rows, seed):
    """(rows, 8 steps) int16: a random level per step, and noise."""
    generator = np.random.default_rng(seed)
    level = LEVEL * generator.standard_normal((rows, 8)).repeat(STACK, 1)
    return torch.from_numpy(np.rint(level + NOISE * generator.standard_normal(level.shape)).astype(np.int16))


def level_bits(pcm):
    """Code length per frame of every row under the process, and under its frames' marginal."""

    def bits(values, variance):
        return 0.5 * np.log2(2 * math.pi * variance) + 0.5 * math.log2(math.e) * values**2 / variance

    steps = pcm.double().numpy().reshape(len(pcm), 8, STACK)
    # an orthonormal transform of a step: the mean has all of the level, the rest is noise
    mean = steps.mean(-1) * math.sqrt(STACK)
    rest = (steps**2).sum(-1) - mean**2
    of_rest = (STACK - 1) * bits(0.0, NOISE**2) + 0.5 * math.log2(math.e) * rest / NOISE**2
    own = bits(mean, NOISE**2 + STACK * LEVEL**2) + of_rest
    return own.mean(1) / STACK, bits(steps, LEVEL**2 + NOISE**2).mean((1, 2))


def cut_off(model):
    """Let all latents be zero and cost nothing, in training and in scoring."""

    def infer(inputs, lengths, *, features, noise, state=None):
        latents = {
            level: inputs.new_zeros(len(inputs), -(-inputs.shape[1] // hop), model.latent_sizes[level])
            for level, hop in model.latent_hops.items()
        }
        given = model.conditionals(inputs, lengths, latents, state=state)
        return Inference(
            latents, Conditionals(given.parameters, given.prior, given.prior), model.initial_state(len(inputs))
        )

    model.infer = infer


def level_costs(build_system, name, test, change=lambda model: None):
    """Bits per frame of every row after training, of a model that is changed first."""
    model, observation = start(build_system, name, LATENT[name], levels(256, seed=0))
    change(model)
    train(model, observation, lambda step: levels(64, seed=step), 200)
    return -nats(model, observation, test, "test").numpy() / math.log(2) / test.shape[1]


@pytest.mark.parametrize("name", list(LATENT))
def test_latents_find_what_frames_of_a_step_share(name, build_system):
    test = levels(256, seed=10**6)
    own, marginal = level_bits(test)
    assert marginal.mean() - own.mean() > 1.5  # bits per frame that latents can win
    costs = level_costs(build_system, name, test)
    assert (costs - own).mean() > -3 * (costs - own).std() / math.sqrt(len(own))
    assert costs.mean() < marginal.mean() - 0.75 * (marginal.mean() - own.mean())


def test_without_latents_the_past_tells_nothing_of_it(build_system):
    test = levels(256, seed=10**6)
    assert abs(level_costs(build_system, "vrnn", test, cut_off).mean() - level_bits(test)[1].mean()) < 0.1
