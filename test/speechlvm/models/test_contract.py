"""What every model promises, tested the same way for all of them, mostly on weights that have been trained a little.

The promises that authors of other models can check, too, are in speechlvm/scoring/contract.py.
"""

import copy

import numpy as np
import pytest
import torch

from speechlvm.data.dumps.dataset import Batch, Segment
from speechlvm.distributions import build_distribution
from speechlvm.distributions.noise import Noise
from speechlvm.models import MODELS, build_model
from speechlvm.models.base import LatentModel
from speechlvm.models.bound import slice_features
from speechlvm.observation import AudioObservation, Statistics
from speechlvm.scoring.contract import CHECKS, Subject
from speechlvm.scoring.objective import objective
from speechlvm.scoring.score import score_batch

SYSTEMS = {
    "lstm_s1": ("lstm", {"stack": 1, "hidden": 8, "layers": 2}),
    "lstm_s4": ("lstm", {"stack": 4, "hidden": 8, "layers": 1}),
    "wavenet_s1": ("wavenet", {"stack": 1, "channels": 6, "layers_per_block": 4, "blocks": 2}),
    "wavenet_s4": ("wavenet", {"stack": 4, "channels": 6, "layers_per_block": 3, "blocks": 2}),
    "zforcing_s4": ("zforcing", {"stack": 4, "latent": 3, "hidden": 6, "state": 8, "embedding": 5}),
    "zforcing_norm_s16": (
        "zforcing",
        {"stack": 16, "latent": 3, "hidden": 6, "state": 8, "embedding": 5}
        | {"conditional_layer_norm": True, "backward_likelihood": True, "initialisation": "plain"},
    ),
    "stochastic_wavenet_s4": (
        "stochastic_wavenet",
        {"stack": 4, "layers": 3, "stochastic_layers": 3, "channels": 6, "latent_total": 7},
    ),
    "stochastic_wavenet_s8": (
        "stochastic_wavenet",
        {"stack": 8, "layers": 4, "stochastic_layers": 2, "channels": 6, "latent_total": 7},
    ),
    "stcn_s1": (
        "stcn",
        {"stack": 1, "channels": 6, "latents": [4, 2], "dilations": [1, 2], "output_layers": 2, "dense": False},
    ),
    "stcn_dense_s4": (
        "stcn",
        {"stack": 4, "channels": 6, "latents": [4, 3, 2], "dilations": [1, 2, 4], "output_layers": 2},
    ),
    "vrnn_s4": ("vrnn", {"stack": 4, "latent": 3, "hidden": 6, "state": 7, "mlp_layers": 2}),
    "srnn_s4": ("srnn", {"stack": 4, "latent": 3, "hidden": 6, "state": 7, "mlp_layers": 2}),
    "srnn_filtering_s1": ("srnn", {"stack": 1, "latent": 3, "hidden": 6, "state": 7, "posterior": "filtering"}),
    "cwvae_l1": ("cwvae", {"stride": 16, "levels": 1, "width": 8}),
    "cwvae_l2": ("cwvae", {"stride": 16, "levels": 2, "width": 8}),
    "cwvae_l3": ("cwvae", {"stride": 16, "levels": 3, "width": 8, "factor": 2}),
}
LENGTHS = [300, 170, 16, 1]  # up to three of the longest hop, 128, and 75 steps of four frames
FRAMES = max(LENGTHS)
PREFIX = 128  # frames that end with a hop of every system


def _noise(rows, dtype=torch.float32, prefix=0):
    return Noise([(prefix, f"u{row}") for row in rows], dtype=dtype)


@pytest.fixture(scope="module")
def audio():
    """(4, FRAMES) int16, zero beyond LENGTHS."""
    generator = np.random.default_rng(5)
    pcm = np.zeros((len(LENGTHS), FRAMES), dtype=np.int16)
    for row, length in enumerate(LENGTHS):
        envelope = 2000 * (1.1 + np.sin(np.arange(length) / 90.0))
        pcm[row, :length] = np.cumsum(generator.standard_normal(length)).clip(-8, 8) / 8 * envelope
    return torch.from_numpy(pcm)


@pytest.fixture(scope="module", params=list(SYSTEMS))
def system(request, audio):
    """A model after 15 optimiser steps, and its observation."""
    name, conf = SYSTEMS[request.param]
    observation = AudioObservation("mulaw", Statistics(0.0, 0.1))
    torch.manual_seed(0)
    distribution = build_distribution("dmol", {"components": 3}, observation)
    model = build_model(name, conf, 1, distribution)
    lengths = torch.tensor(LENGTHS)
    histogram = np.bincount(audio.numpy().reshape(-1).astype(int) + 32768, minlength=65536)
    model.initialise_output(model.distribution.initial_bias(*observation.marginal(histogram)))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for step in range(15):
        noise = _noise(range(4), prefix=step)
        bound = model.score(observation.inputs(audio, lengths), observation.target(audio), lengths, noise)
        loss = objective(bound, sum(LENGTHS), auxiliary_weights=dict.fromkeys(bound.auxiliary, 1.0))
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    return model.eval().requires_grad_(False), observation


def _batch(audio, rows):
    lengths = torch.tensor([LENGTHS[row] for row in rows])
    segments = tuple(Segment(f"u{row}", 0, LENGTHS[row]) for row in rows)
    return Batch(segments, audio[rows][:, : int(lengths.max())], lengths)


def _nats(model, observation, audio, rows, chunk=10**6):
    return {s.utterance: s.nats for s in score_batch(model, observation, _batch(audio, rows), chunk)}


def test_registered_models_are_all_here():
    assert {name for name, _ in SYSTEMS.values()} == set(MODELS)


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_promises(tiny, check):
    assert check(Subject.of(tiny.model, tiny.observation)) is None


def test_a_state_within_a_step_is_refused(tiny, double_noise):
    model, observation, frames = tiny.model, tiny.observation, tiny.model.hop + 1
    if model.hop == 1:
        pytest.skip("every frame is a step")
    pcm, lengths = torch.zeros(1, frames, dtype=torch.int16), torch.tensor([frames])
    given = observation.inputs(pcm, lengths).double(), observation.target(pcm), lengths
    options = {"features": model.encode(given[0], lengths), "noise": double_noise(1)}
    _, state = model(*given, **options)
    message = f"after {frames} frames cannot be continued; expected a multiple of {model.hop}$"
    with pytest.raises(ValueError, match=message):
        model(*given, **options, state=state)
    with pytest.raises(ValueError, match=message):
        model.sample(4, double_noise(1), observation.inputs_of, state)


def test_shapes_masks_and_finite_values(system, audio):
    model, observation = system
    lengths = torch.tensor(LENGTHS)
    bound = model.score(observation.inputs(audio, lengths), observation.target(audio), lengths, _noise(range(4)))
    series = bound.log_likelihood
    assert series.values.shape == audio.shape == series.mask.shape and series.hop == 1
    assert series.mask.sum(1).tolist() == LENGTHS
    assert torch.isfinite(series.values).all() and not series.values[~series.mask].any()
    assert (bound.kl == {}) == (model.bound == "exact")
    for level, kl in bound.kl.items():
        assert kl.mask.sum(1).tolist() == [-(-length // kl.hop) for length in LENGTHS]
        assert kl.values.shape[:2] == kl.mask.shape and (kl.values >= -1e-6).all()
        assert not kl.values[~kl.mask].any()
        assert bound.log_ratio[level].values.shape == kl.mask.shape


def test_chunks_and_batches_change_nothing_but_rounding(system, audio):
    model, observation = system
    whole = _nats(model, observation, audio, [0, 1, 2, 3])
    alternatives = [_nats(model, observation, audio, [row]) for row in range(4)]
    alternatives.append(_nats(model, observation, audio, [3, 1, 0, 2]))
    alternatives += [_nats(model, observation, audio, [0, 1, 2, 3], chunk) for chunk in (1, 30, 130)]
    for other in alternatives:
        for utterance, nats in other.items():
            assert nats == pytest.approx(whole[utterance], abs=1e-6 * LENGTHS[int(utterance[1])], rel=0)


def test_score_depends_on_each_frame(system, audio):
    # every frame is scored, the first and the last included
    model, observation = system
    base = _nats(model, observation, audio, [0])["u0"]
    for frame in (0, FRAMES - 1):
        changed = audio.clone()
        changed[0, frame] += 3000
        assert abs(_nats(model, observation, changed, [0])["u0"] - base) > 1e-3


def test_samples_are_a_function_of_the_noise(system):
    model, observation = copy.deepcopy(system[0]).double(), system[1]
    frames = 70
    noise = _noise([0, 1], torch.float64, "sample")
    samples = model.sample(frames, noise, observation.inputs_of)
    assert samples.target.shape == (2, frames, 1) and samples.log_likelihood.shape == (2, frames)
    assert samples.target.min() >= 0 and samples.target.max() < 65536
    again = model.sample(frames, noise, observation.inputs_of)
    assert torch.equal(samples.target, again.target)
    other = model.sample(frames, _noise([0, 1], torch.float64, "other"), observation.inputs_of)
    assert not torch.equal(samples.target, other.target)


def test_one_row_samples_the_same_alone_and_in_a_batch(system):
    model, observation = copy.deepcopy(system[0]).double(), system[1]
    both = model.sample(70, _noise([0, 1], torch.float64), observation.inputs_of)
    alone = model.sample(70, _noise([1], torch.float64), observation.inputs_of)
    assert torch.equal(both.target[1:], alone.target)


def test_weights_survive_saving(system, audio, tmp_path):
    model, observation = system
    torch.save(model.state_dict(), tmp_path / "w.pt")
    fresh = copy.deepcopy(model)
    for parameter in fresh.parameters():
        parameter.data.zero_()
    assert _nats(fresh, observation, audio, [0]) != _nats(model, observation, audio, [0])
    fresh.load_state_dict(torch.load(tmp_path / "w.pt", weights_only=True))
    assert _nats(fresh, observation, audio, [0]) == _nats(model, observation, audio, [0])


def test_importance_weighted_bound_is_above_the_elbo(system, audio):
    model, observation = system
    if model.bound == "exact":
        return
    batch = _batch(audio, [1])
    one = np.mean([score_batch(model, observation, batch, 10**6, seed)[0].nats for seed in range(8)])
    many = score_batch(model, observation, batch, 10**6, samples=32)[0].nats
    assert many > one
    chunked = score_batch(model, observation, batch, 1, samples=32)[0].nats
    assert many == pytest.approx(chunked, abs=1e-3)


def test_features_slice_as_they_are_cut(system, audio):
    model, observation = system
    lengths = torch.tensor(LENGTHS)
    features = model.encode(observation.inputs(audio, lengths), lengths)
    for name, series in slice_features(features, model.hop, 2 * model.hop).items():
        assert series.values.shape[1] == -(-min(model.hop, FRAMES - model.hop) // features[name].hop)


def test_latents_and_their_gaussians_stay_in_float32_under_autocast(system, audio):
    model, observation = system
    if not isinstance(model, LatentModel):
        pytest.skip("no latents")
    lengths = torch.tensor(LENGTHS)
    inputs = observation.inputs(audio, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        inference = model.infer(inputs, lengths, features=model.encode(inputs, lengths), noise=_noise(range(4)))
    conditionals = inference.conditionals
    assert conditionals.parameters.dtype == torch.float32
    for level, z in inference.latents.items():
        for tensor in (z, *vars(conditionals.prior[level]).values(), *vars(conditionals.posterior[level]).values()):
            assert tensor.dtype == torch.float32
