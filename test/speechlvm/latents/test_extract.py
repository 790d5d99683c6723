import math

import numpy as np
import pytest
import torch

from speechlvm.data.dumps import open_dump
from speechlvm.data.dumps.dataset import Segment, read_batch
from speechlvm.distributions import build_distribution
from speechlvm.distributions.latent import kl
from speechlvm.distributions.noise import Noise
from speechlvm.latents import extract
from speechlvm.models import build_model
from speechlvm.observation import AudioObservation, Statistics
from speechlvm.utils.errors import ConfigError

S = 4
SYSTEMS = {
    "cwvae": {"stride": S, "levels": 2, "factor": 2, "width": 5, "blocks": 1},
    "vrnn": {"stack": S, "latent": 3, "hidden": 6, "state": 5, "mlp_layers": 3},
    "srnn": {"stack": S, "latent": 3, "hidden": 6, "state": 5, "mlp_layers": 3},
    "zforcing": {"stack": S, "latent": 3, "hidden": 6, "state": 5, "embedding": 4},
    "stochastic_wavenet": {"stack": S, "layers": 3, "stochastic_layers": 2, "channels": 6, "latent_total": 7},
    "stcn": {"stack": S, "channels": 6, "latents": [4, 3], "dilations": [1, 2], "output_layers": 2},
    "lstm": {"stack": S, "hidden": 6, "layers": 2, "mlp_layers": 1},
    "wavenet": {"stack": S, "channels": 6, "layers_per_block": 2, "blocks": 2},
}
LATENT = [name for name in SYSTEMS if name not in ("lstm", "wavenet")]
LENGTHS = (150, 77, 64)
SAMPLES = 3


@pytest.fixture(scope="module", params=SYSTEMS)
def system(request):
    observation = AudioObservation("mulaw8", Statistics(0.0, 0.1))
    torch.manual_seed(0)
    distribution = build_distribution("dmol", {}, observation)
    model = build_model(request.param, SYSTEMS[request.param], 1, distribution).double().eval()
    with torch.no_grad():  # nothing that starts at zero hides anything
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return request.param, model.requires_grad_(False), observation


@pytest.fixture
def dump(make_dump):
    return open_dump(make_dump("test", LENGTHS))


def run(model, observation, dump, *, utterances=None, samples=SAMPLES, least_hop=S, **options):
    described = extract.representations(model, ("mean", "std", "kl"), least_hop)
    chosen = sorted(dump.records) if utterances is None else utterances
    items = list(extract.extract_dump(model, observation, dump, chosen, described, samples=samples, **options))
    parts = {u: [values for other, values in items if other == u] for u, _ in items}
    return described, {
        u: {r.name: {s: np.concatenate([v[r.name][s] for v in values]) for s in r.statistics} for r in described}
        for u, values in parts.items()
    }


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for utterance, values in one.items():
        for name, statistics in values.items():
            for statistic, array in statistics.items():
                np.testing.assert_allclose(array, other[utterance][name][statistic], rtol=1e-5, atol=1e-6)


def test_batches_and_chunks_change_no_number(system, dump):
    _, model, observation = system
    _, together = run(model, observation, dump)
    alone = {}
    for utterance in dump.records:
        alone.update(run(model, observation, dump, utterances=[utterance], row_steps=SAMPLES * 4)[1])
    assert_equal(together, alone)


@pytest.mark.parametrize("least_hop", [S, 3 * S])
def test_long_utterances_come_in_parts_with_the_same_numbers(system, dump, least_hop):
    _, model, observation = system
    _, together = run(model, observation, dump, least_hop=least_hop)
    _, apart = run(model, observation, dump, least_hop=least_hop, max_frames=70)
    assert_equal(together, apart)
    described = extract.representations(model, ("mean",), least_hop)
    items = extract.extract_dump(model, observation, dump, sorted(dump.records), described, samples=1, max_frames=70)
    names = [utterance for utterance, _ in items]
    assert names == sorted(names) and names.count("u00") > names.count("u01") > names.count("u02") == 1


def test_shapes_and_clocks(system, dump):
    name, model, observation = system
    described, values = run(model, observation, dump)
    assert [r.name for r in described] == {
        "cwvae": ["z1", "z2"],
        "stochastic_wavenet": ["z1", "z2"],
        "stcn": ["z1", "z2"],
        "lstm": ["h"],
        "wavenet": ["skip2", "skip4"],
    }.get(name, ["z1"])
    for utterance, frames in zip(sorted(values), LENGTHS, strict=True):
        for r in described:
            assert set(values[utterance][r.name]) == set(r.statistics)
            for array in values[utterance][r.name].values():
                assert array.shape == (math.ceil(frames / r.hop_frames), r.dimensions)
                assert array.dtype == np.float32


@pytest.mark.parametrize("system", LATENT, indirect=True)
def test_statistics_are_those_of_single_passes(system, dump):
    """One path after another through `infer` with decoding, averaged by hand."""
    _, model, observation = system
    described, values = run(model, observation, dump)
    for utterance, record in dump.records.items():
        batch = read_batch(dump, [Segment(utterance, 0, record.frames)])
        inputs = observation.inputs(batch.data, batch.lengths).double()
        features = model.encode(inputs, batch.lengths)
        noise = Noise(batch.noise_keys(0, "latents"), dtype=torch.float64).repeat(SAMPLES)
        passes = [
            model.infer(inputs, batch.lengths, features=features, noise=noise.select([k])).conditionals
            for k in range(SAMPLES)
        ]
        differ = []
        for r in described:
            q, p = ([getattr(c, kind)[r.name] for c in passes] for kind in ("posterior", "prior"))
            means = torch.stack([of_pass.mean[0] for of_pass in q])
            variance = torch.stack([of_pass.std[0].square() for of_pass in q]).mean(0) + means.var(0, unbiased=False)
            divergence = torch.stack([kl(*pair)[0] for pair in zip(q, p, strict=True)]).mean(0)
            differ.append(bool(means.var(0).max() > 1e-12))
            expected = {"mean": means.mean(0), "std": variance.sqrt(), "kl": divergence}
            for statistic, value in expected.items():
                np.testing.assert_allclose(values[utterance][r.name][statistic], value, rtol=1e-5, atol=1e-6)
        assert any(differ)  # later posteriors follow the path; without that there is nothing to average


@pytest.mark.parametrize("system", ["lstm"], indirect=True)
def test_a_model_without_hidden_states_is_refused(system, monkeypatch):
    _, model, _ = system
    monkeypatch.setattr(model, "hidden_sizes", {})
    monkeypatch.setattr(model, "hidden_chosen", ())
    with pytest.raises(ConfigError, match="LSTM has no hidden states to analyse.* --skip_analysis"):
        extract.representations(model, ("mean",), S)


@pytest.mark.parametrize("system", ["lstm", "wavenet"], indirect=True)
def test_hidden_states_have_seen_their_own_stack_and_none_after_it(system, dump):
    _, model, observation = system
    utterance = sorted(dump.records)[1]  # its last stack has one frame
    described = extract.representations(model, ("mean",), S)
    segment = Segment(utterance, 0, dump.records[utterance].frames)
    batch = read_batch(dump, [segment])
    (before,) = (v for _, v in extract.extract_batch(model, observation, batch, described, 1, 0))
    batch.data[0, 40:44] += 500  # stack 10
    (after,) = (v for _, v in extract.extract_batch(model, observation, batch, described, 1, 0))
    for r in described:
        changed = (before[r.name]["mean"] != after[r.name]["mean"]).any(1)
        assert not changed[:10].any()
        assert changed[10]


@pytest.mark.parametrize("system", ["lstm", "wavenet"], indirect=True)
def test_hidden_states_predict_as_the_model_does(system, dump):
    """What comes out of the last layers, put through the output network, gives the model's own likelihood."""
    name, model, observation = system
    utterance = sorted(dump.records)[0]
    batch = read_batch(dump, [Segment(utterance, 0, 148)])
    inputs, target = observation.inputs(batch.data, batch.lengths).double(), observation.target(batch.data)
    names = list(model.hidden_sizes)
    states, _ = model.hidden_states(inputs, names)
    if name == "lstm":
        parameters = model.head(model.decoder(states["h"]))
    else:
        parameters = model._output(sum(states.values()) + model.skip_bias)
    parameters = parameters.reshape(1, 148, -1)
    bound = model.score(inputs, target, batch.lengths)
    torch.testing.assert_close(model.distribution.log_prob(parameters, target), bound.log_likelihood.values)


@pytest.mark.parametrize("system", ["vrnn", "lstm"], indirect=True)
def test_fine_clocks_are_made_coarser(system, dump):
    _, model, observation = system
    _, fine = run(model, observation, dump)
    (coarse,), values = run(model, observation, dump, least_hop=3 * S - 1)
    assert (coarse.hop_frames, coarse.first_centre_frames) == (3 * S, 1.5 * S)
    for utterance, statistics in values.items():
        own = fine[utterance][coarse.name]
        groups = [slice(i, i + 3) for i in range(0, len(own["mean"]), 3)]
        by_hand = {
            "mean": lambda v: v.mean(0),
            "std": lambda v: np.sqrt((v**2).mean(0)),
            "kl": lambda v: v.sum(0),
        }
        for statistic, array in statistics[coarse.name].items():
            expected = np.stack([by_hand[statistic](own[statistic][group]) for group in groups])
            np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("system", ["wavenet", "cwvae"], indirect=True)
def test_names_choose(system):
    name, model, _ = system
    wanted = ["skip3", "skip1"] if name == "wavenet" else ["z2"]
    assert [r.name for r in extract.representations(model, ("mean",), 1, wanted)] == sorted(wanted)
    with pytest.raises(ConfigError, match="'z9': the model has no such representation; expected"):
        extract.representations(model, ("mean",), 1, ["z9"])
