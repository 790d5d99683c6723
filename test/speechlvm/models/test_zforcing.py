"""Z-forcing's own: its auxiliary losses, and its recurrence as a chain and step by step."""

import json

import pytest
import torch
from torch import distributions as td
from torch.nn import functional as F

from speechlvm.bin import train
from speechlvm.data.dumps.dataset import Batch, Segment
from speechlvm.distributions.noise import Noise
from speechlvm.experiment.config import load_config
from speechlvm.models.bound import slice_features
from speechlvm.models.zforcing import LatentLSTM
from speechlvm.modules import recurrence
from speechlvm.modules.chain import run_plain
from speechlvm.modules.fast_chain import run_chain
from speechlvm.scoring.objective import objective, row_terms
from speechlvm.scoring.score import score_batch
from speechlvm.utils.errors import ConfigError

STACK, FRAMES = 4, 30  # the last step is a partial one
LENGTHS = torch.tensor([FRAMES, 17])
STEPS = [8, 5]
SIZES = {"stack": STACK, "latent": 3, "hidden": 5, "state": 6, "embedding": 4}


@pytest.fixture(params=[False, True], ids=["plain", "layer_norm"])
def system(request, build_system):
    """In training mode, with weights far from their start; b matters as much as h."""
    conf = {**SIZES, "conditional_layer_norm": request.param, "backward_likelihood": True}
    conf["initialisation"] = "plain"
    model, observation = build_system("zforcing", conf, distribution_conf={"components": 2})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model, observation


@pytest.fixture
def pcm():
    values = torch.randint(-30000, 30000, (2, FRAMES), generator=torch.Generator().manual_seed(2)).to(torch.int16)
    values[1, LENGTHS[1] :] = 0
    return values


def _noise(rows=2, dtype=torch.float64):
    return Noise([("u", row) for row in range(rows)], dtype=dtype)


def _inputs(observation, pcm):
    return observation.inputs(pcm, LENGTHS).double(), observation.target(pcm)


def _score(system, pcm):
    model, observation = system
    return model.score(*_inputs(observation, pcm), LENGTHS, _noise())


def _steps_seen(value, source, hop):
    """Indices of the steps of `source` (1, T, .) that `value` depends on."""
    (gradient,) = torch.autograd.grad(value, source, retain_graph=True, allow_unused=True, materialize_grads=True)
    return gradient.unflatten(1, (-1, hop)).flatten(2).ne(0).any(-1)[0].nonzero().flatten().tolist()


def test_the_backward_network_is_an_lstm_over_each_row_alone_from_its_end(system, pcm):
    model, observation = system
    inputs, _ = _inputs(observation, pcm)
    features = model.encode(inputs, LENGTHS)
    for row, steps in enumerate(STEPS):
        stacks = F.pad(inputs[row], (0, 0, 0, 2)).reshape(-1, STACK)
        b = model.backward_lstm(model.embedding(stacks[:steps].flip(0)))[0].flip(0)
        torch.testing.assert_close(features["b"].values[row, :steps], b)
        torch.testing.assert_close(features["following"].values[row, : steps - 1], b[1:])
        assert not features["following"].values[row, steps - 1].any()
        assert not features["b"].values[row, steps:].any()


def test_the_cell_is_the_authors_lstm_at_given_latents(system, pcm):
    """By hand: the likelihood of x_t from h_t = LSTM([emb(x_{t-1}), g(z_t)], h_{t-1})."""
    model, observation = system
    inputs, _ = _inputs(observation, pcm)
    z = torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    stacks = F.pad(inputs, (0, 0, 0, 2)).unflatten(1, (-1, STACK)).flatten(2)
    transition, h, c, expected = model.transition, *torch.zeros(2, 2, 6, dtype=torch.float64), []
    for t in range(8):
        embedded = model.embedding(stacks[:, t - 1] if t else model.first_input.expand(2, -1))
        if isinstance(transition, LatentLSTM):
            cell = transition.cell
            joined = torch.cat([embedded, transition.generator(z[:, t])], -1)
            gates = cell.input(joined) + cell.state(h)
        else:
            gain, shift = transition.modulation(z[:, t]).clamp(-3, 3).split(24, -1)
            recurrent = transition.state(h)
            spread = (recurrent.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
            recurrent = (recurrent - recurrent.mean(-1, keepdim=True)) / spread
            gates = transition.normalisation(transition.input(embedded)) + (1 + gain) * recurrent + shift
        o, i, f, g = gates.split(6, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        expected.append(model.head(h).reshape(2, STACK, -1))
    found = model.conditionals(inputs, LENGTHS, {"z1": z}).parameters
    torch.testing.assert_close(found, torch.cat(expected, 1)[:, :FRAMES])


def test_the_chain_is_the_loop(build_system, pcm, monkeypatch):
    """Values, and gradients of all weights."""
    found = []
    for run in (run_chain, run_plain):
        monkeypatch.setattr(recurrence, "run_chain", run)
        model, observation = build_system("zforcing", SIZES, distribution_conf={"components": 2})
        bound = _score((model, observation), pcm)
        objective(bound, 47, auxiliary_weights={"zforcing": 0.5}).backward()
        gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
        found.append((row_terms(bound), bound.auxiliary["zforcing"].values.detach(), gradients))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)
    assert all(gradient.any() for gradient in found[0][2].values())


def test_the_target_of_the_auxiliary_loss_gets_no_gradient(system, pcm):
    """At fixed latents nothing of the cost reaches the backward network; drawn latents, which saw b, carry it there."""
    model, observation = system
    inputs, _ = _inputs(observation, pcm)
    features = model.encode(inputs, LENGTHS)
    inference = model.infer(inputs, LENGTHS, features=features, noise=_noise())
    z, b = inference.latents["z1"].transpose(0, 1), features["b"].values.transpose(0, 1)
    backward = list(model.backward_lstm.parameters())
    cost = model._reconstruction_loss(z, b)
    torch.testing.assert_close(
        inference.auxiliary["zforcing"].values[0], cost.transpose(0, 1)[0], rtol=1e-12, atol=1e-12
    )
    through_latents = torch.autograd.grad(cost.sum(), z, retain_graph=True)[0]
    expected = torch.autograd.grad(z, backward, through_latents, retain_graph=True)
    found = torch.autograd.grad(cost.sum(), backward, retain_graph=True)
    torch.testing.assert_close(found, expected)
    fixed = model._reconstruction_loss(z.detach(), b)
    assert torch.autograd.grad(fixed.sum(), backward, allow_unused=True) == (None,) * len(backward)


def test_the_auxiliary_losses_are_those_of_the_paper(system, pcm):
    model, observation = system
    inputs, target = _inputs(observation, pcm)
    features = model.encode(inputs, LENGTHS)
    bound, _ = model(inputs, target, LENGTHS, features=features, noise=_noise())
    z = model.infer(inputs, LENGTHS, features=features, noise=_noise()).latents["z1"]
    mean, raw = model.reconstruction(z).chunk(2, -1)
    floor = torch.tensor(-4.0).double().exp()
    std = floor + F.softplus(raw + torch.log(torch.expm1(1 - floor)))
    expected = -td.Normal(mean.tanh(), std).log_prob(features["b"].values).sum(-1)
    found = bound.auxiliary["zforcing"]
    assert found.hop == STACK and found.mask.sum(1).tolist() == STEPS
    torch.testing.assert_close(found.values[found.mask], expected[found.mask])
    assert not found.values[~found.mask].any()

    found = bound.auxiliary["backward"]
    parameters = model.backward_head(features["following"].values).reshape(2, 32, -1)[:, :FRAMES]
    expected = -model.distribution.log_prob(parameters, target)
    assert found.hop == 1 and found.mask.sum(1).tolist() == LENGTHS.tolist()
    torch.testing.assert_close(found.values[found.mask], expected[found.mask])
    assert not found.values[~found.mask].any()


def test_the_backward_network_predicts_from_what_follows_alone(system):
    model, observation = system
    x = torch.randn(1, 5 * STACK, 1, generator=torch.Generator().manual_seed(5), dtype=torch.float64).requires_grad_()
    lengths = torch.tensor([5 * STACK])
    target = observation.target(torch.zeros(1, 5 * STACK, dtype=torch.int16))
    cost = model.score(x, target, lengths, _noise(1)).auxiliary["backward"].values.unflatten(1, (5, STACK)).sum(-1)
    for t in range(5):
        assert _steps_seen(cost[0, t], x, STACK) == list(range(t + 1, 5))


def test_auxiliary_losses_in_chunks_are_those_of_the_whole(system, pcm):
    model, observation = system
    inputs, target = _inputs(observation, pcm)
    features = model.encode(inputs, LENGTHS)
    whole = _score(system, pcm).auxiliary
    parts, state = [], None
    for start in range(0, FRAMES, 2 * STACK):
        stop = min(start + 2 * STACK, FRAMES)
        bound, state = model(
            inputs[:, start:stop], target[:, start:stop], LENGTHS - start,
            features=slice_features(features, start, stop), state=state, noise=_noise(),
        )  # fmt: skip
        parts.append(bound.auxiliary)
    for name, series in whole.items():
        torch.testing.assert_close(torch.cat([part[name].values for part in parts], 1), series.values)


def test_no_score_has_auxiliary_losses(system, pcm):
    model, observation = system
    training = _score(system, pcm)
    assert set(training.auxiliary) == set(model.config.auxiliary_losses) == {"zforcing", "backward"}
    assert set(row_terms(training)) == {"log_likelihood", "kl_z1", "log_ratio_z1"}
    batch = Batch(tuple(Segment(f"u{row}", 0, int(LENGTHS[row])) for row in range(2)), pcm, LENGTHS)
    scores = score_batch(model, observation, batch, 10**6)
    model.eval()
    assert _score(system, pcm).auxiliary == {}
    assert score_batch(model, observation, batch, 10**6) == scores
    with torch.no_grad():
        for part in (model.reconstruction, model.backward_head):
            for parameter in part.parameters():
                parameter.fill_(100.0)
    assert score_batch(model, observation, batch, 10**6) == scores


def test_bf16_is_close_to_float32_and_finite(system, pcm):
    model, observation = system
    model.float()
    found = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            inputs, target = observation.inputs(pcm, LENGTHS), observation.target(pcm)
            bound = model.score(inputs, target, LENGTHS, _noise(dtype=torch.float32))
        loss = objective(bound, 47, auxiliary_weights={"zforcing": 0.1, "backward": 0.1})
        loss.backward()
        assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
        found.append(loss.item())
        assert bound.kl["z1"].values.dtype == torch.float32
    assert found[0] == pytest.approx(found[1], rel=0.02) and found[0] != found[1]


CONFIG = (
    ("model: lstm", "model: zforcing"),
    ("{stack: 16, hidden: 12, layers: 1}", "{stack: 64, latent: 3, hidden: 5, state: 6, embedding: 4}"),
)
CLIP = "  gradient_clip: 1.0"


def test_costs_that_this_configuration_lacks_are_refused(tiny_config):
    weights = f"{CLIP}\n  auxiliary: {{NAME: {{initial: 1.0, final: 0.0, steps: 2}}}}"
    load_config(tiny_config(*CONFIG, (CLIP, weights.replace("NAME", "zforcing"))))
    for wrong in ("backward", "zforcin"):
        with pytest.raises(ConfigError) as error:
            load_config(tiny_config(*CONFIG, (CLIP, weights.replace("NAME", wrong))))
        assert str(error.value).endswith(f": unknown loss '{wrong}' for zforcing; expected one of zforcing")
    both = ("embedding: 4}", "embedding: 4, backward_likelihood: true}")
    load_config(tiny_config(*CONFIG, both, (CLIP, weights.replace("NAME", "backward"))))


def test_training_weighs_the_costs_that_are_named(tiny_config, make_dump, tmp_path):
    """Without a weight f(z) stays as it was; a weight moves it, and the first score knows nothing of either."""
    dumps = make_dump("train", [3000, 2500]), make_dump("valid", [1200], seed=50)
    weighed = (CLIP, f"{CLIP}\n  auxiliary: {{zforcing: {{initial: 1.0, final: 0.0, steps: 9}}}}")
    weights, histories = [], []
    for name, replacements in {"without": CONFIG, "with": (*CONFIG, weighed)}.items():
        out = tmp_path / name
        arguments = ["--config", tiny_config(*replacements), "--train", dumps[0], "--valid", dumps[1], "--out", out]
        assert train.main([*map(str, arguments), "--limits.steps", "4"]) == 0
        content = torch.load(out / "checkpoints" / "step-00000004.pt", weights_only=True)
        weights.append(content["model"])
        histories.append([json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()])
    assert histories[0][0]["nats_per_frame"] == histories[1][0]["nats_per_frame"]
    moved = {key.split(".")[0] for key in weights[0] if not torch.equal(weights[0][key], weights[1][key])}
    assert "reconstruction" in moved and "posterior" in moved
