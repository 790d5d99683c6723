"""Free nats, the weight of the KL terms and auxiliary losses steer training; no score knows of them."""

import json
import math

import pytest
import torch

from speechlvm.bin import train
from speechlvm.data.dumps import open_dump
from speechlvm.data.dumps.dataset import Batch, Segment
from speechlvm.distributions.latent import kl
from speechlvm.distributions.noise import Noise
from speechlvm.experiment.load import load_experiment
from speechlvm.scoring.accounting import corpus_score
from speechlvm.scoring.objective import objective, row_terms
from speechlvm.scoring.score import score_batch, score_dump

LENGTHS = [41, 22]
SAMPLES = 3
AUXILIARY = {"zforcing": {"zforcing"}, "zforcing_normalised": {"zforcing", "backward"}}


@pytest.fixture
def batch():
    lengths = torch.tensor(LENGTHS)
    pcm = torch.randint(-30000, 30000, (2, max(LENGTHS)), generator=torch.Generator().manual_seed(5)).to(torch.int16)
    pcm[1, LENGTHS[1] :] = 0
    return Batch(tuple(Segment(f"u{row}", 0, length) for row, length in enumerate(LENGTHS)), pcm, lengths)


def inferred(tiny_latent, batch, noise):
    """Per row and copy: log p(x|z), {level: (B, T_l) KL, summed over dimensions}, {level: (B,) log q / p}."""
    model, observation = tiny_latent.model, tiny_latent.observation
    copies = len(noise) // len(LENGTHS)
    pcm, lengths = (x.repeat_interleave(copies, 0) for x in (batch.data, batch.lengths))
    inputs, target = observation.inputs(pcm, lengths).double(), observation.target(pcm)
    inference = model.infer(inputs, lengths, features=model.encode(inputs, lengths), noise=noise)
    conditionals = inference.conditionals
    real = torch.arange(inputs.shape[1]) < lengths[:, None]
    likelihood = (model.distribution.log_prob(conditionals.parameters, target) * real).sum(1)
    divergence, ratio = {}, {}
    for level, z in inference.latents.items():
        p, q = conditionals.prior[level], conditionals.posterior[level]
        mask = real[:, :: model.latent_hops[level]]
        divergence[level] = kl(q, p).sum(-1) * mask
        ratio[level] = ((q.log_prob(z) - p.log_prob(z)).sum(-1) * mask).sum(1)
    return likelihood, divergence, ratio


def test_scores_are_log_likelihood_minus_kl_and_nothing_else(tiny_latent, batch):
    noise = Noise(batch.noise_keys(0, "score"), dtype=torch.float64)
    likelihood, divergence, _ = inferred(tiny_latent, batch, noise)
    expected = likelihood - sum(steps.sum(1) for steps in divergence.values())
    scores = score_batch(tiny_latent.model, tiny_latent.observation, batch, 10**6)
    assert [score.nats for score in scores] == pytest.approx(expected.tolist(), rel=1e-9)
    for row, score in enumerate(scores):
        parts = {f"kl_{level}": float(steps[row].sum()) for level, steps in divergence.items()}
        assert score.terms == pytest.approx({"log_likelihood": float(likelihood[row]), **parts}, rel=1e-9)


def test_importance_weighted_scores_are_means_of_weights_and_nothing_else(tiny_latent, batch):
    noise = Noise(batch.noise_keys(0, "score"), dtype=torch.float64).repeat(SAMPLES)
    likelihood, _, ratio = inferred(tiny_latent, batch, noise)
    log_weights = (likelihood - sum(ratio.values())).unflatten(0, (-1, SAMPLES))
    assert log_weights.std(1).max() > 0.1
    expected = log_weights.logsumexp(1) - math.log(SAMPLES)
    for chunk in (1, 10**6):
        scores = score_batch(tiny_latent.model, tiny_latent.observation, batch, chunk, samples=SAMPLES)
        assert [score.nats for score in scores] == pytest.approx(expected.tolist(), rel=1e-9)


def test_the_objective_weighs_what_the_terms_leave_alone(tiny_latent, batch):
    model, observation = tiny_latent.model, tiny_latent.observation
    noise = Noise(batch.noise_keys(0, "score"), dtype=torch.float64)
    inputs, target = observation.inputs(batch.data, batch.lengths).double(), observation.target(batch.data)
    scored = row_terms(model.score(inputs, target, batch.lengths, noise))
    model.train()  # where auxiliary losses are
    bound = model.score(inputs, target, batch.lengths, noise)
    model.eval()
    assert set(bound.auxiliary) == AUXILIARY.get(tiny_latent.name, set())
    likelihood, divergence, _ = inferred(tiny_latent, batch, noise)
    total = sum(float(steps.sum()) for steps in divergence.values())
    free = float(torch.cat([steps.flatten() for steps in divergence.values()]).max())  # above all steps but one
    paid = sum(
        float(torch.where(series.mask, divergence[level].clamp(min=free), 0.0).sum())
        for level, series in bound.kl.items()
    )
    assert paid > total > 0.1
    fastest = min(series.hop for series in bound.kl.values())
    of_dimensions = sum(
        float(torch.where(series.mask, series.values.clamp(min=share).sum(-1), 0.0).sum())
        for series in bound.kl.values()
        for share in [free * series.hop / fastest / series.values.shape[-1]]
    )

    before = row_terms(bound)
    assert set(before) == {"log_likelihood", *(f"{kind}_{l}" for kind in ("kl", "log_ratio") for l in divergence)}
    frames, nats = sum(LENGTHS), float(likelihood.sum())
    assert objective(bound, frames).item() == pytest.approx((total - nats) / frames)
    assert objective(bound, frames, kl_weight=0.25).item() == pytest.approx((0.25 * total - nats) / frames)
    assert objective(bound, frames, free_nats=free).item() == pytest.approx((paid - nats) / frames)
    steered = objective(bound, frames, free_nats=free, free_per_dimension=True).item()
    assert steered == pytest.approx((of_dimensions - nats) / frames) and of_dimensions > total
    for name, series in bound.auxiliary.items():
        cost = float(series.values[series.mask].sum())
        assert cost != 0
        weighed = objective(bound, frames, auxiliary_weights={name: 0.5}).item()
        assert weighed == pytest.approx((total - nats + 0.5 * cost) / frames)
    for terms in (scored, row_terms(bound)):
        assert set(terms) == set(before)
        for name, value in before.items():
            torch.testing.assert_close(terms[name], value, rtol=1e-12, atol=1e-12)


STEERED = {  # settings, auxiliary losses
    "cwvae": ("{stride: 16, levels: 2, width: 6}", "{}"),
    "zforcing": (
        "{stack: 16, latent: 3, hidden: 6, state: 5, embedding: 4, backward_likelihood: true}",
        "{zforcing: {initial: 1, final: 1, steps: 1}, backward: {initial: 10, final: 10, steps: 1}}",
    ),
}


@pytest.mark.parametrize("name", list(STEERED))
def test_training_validates_with_scores_whatever_steers_it(name, tiny_config, make_dump, tmp_path):
    """With half the KL, 1000 nats free per step and heavy auxiliary losses, history holds what scoring gives."""
    dumps = make_dump("train", [3000, 2500]), make_dump("valid", [1200, 900], seed=50)
    conf, auxiliary = STEERED[name]
    rising = "{schedule: linear, initial: 0.5, steps: 1000}"
    steering = (
        ("model: lstm", f"model: {name}"),
        ("model_conf: {stack: 16, hidden: 12, layers: 1}", f"model_conf: {conf}"),
        ("gradient_clip: 1.0", f"kl_weight: {rising}\n  free_nats: 1000\n  auxiliary: {auxiliary}"),
        ("limits: {steps: 12}", "limits: {steps: 8}"),
    )
    config, out = tiny_config(*steering), tmp_path / "exp"
    arguments = ["--config", config, "--train", dumps[0], "--valid", dumps[1], "--out", out]
    assert train.main([str(argument) for argument in arguments]) == 0
    experiment = load_experiment(out)
    score = corpus_score(score_dump(experiment.model, experiment.observation, open_dump(dumps[1])))
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    best = max(history, key=lambda entry: entry["nats_per_frame"])
    assert best["step"] == experiment.provenance.step
    assert best["nats_per_frame"] == pytest.approx(score.nats_per_frame, rel=1e-6)
    terms = score.terms_nats_per_frame
    total = terms.pop("log_likelihood") - sum(terms.values())
    assert score.nats_per_frame == pytest.approx(total, rel=1e-9)
    assert set(terms) == {f"kl_{level}" for level in experiment.model.latent_hops}
    assert sum(terms.values()) * 16 < 1000  # nats per step: the free ones are not in it
