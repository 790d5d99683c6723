"""What stage 5 makes of a model: which latents each sequence keeps, and what is said about it."""

import json

import numpy as np
import pytest
import torch

from speechlvm.distributions import build_distribution
from speechlvm.experiment.trained import Experiment
from speechlvm.models import build_model
from speechlvm.observation import AudioObservation, Statistics
from speechlvm.sampling import generate

FRAMES = 70
SYSTEMS = {
    "lstm": ("lstm", {"stack": 4, "hidden": 6}),
    "vrnn": ("vrnn", {"stack": 4, "latent": 3, "hidden": 6, "state": 5, "mlp_layers": 3}),
    "cwvae_l2": ("cwvae", {"stride": 4, "levels": 2, "factor": 2, "width": 5, "blocks": 1}),
    "stcn_l3": ("stcn", {"stack": 4, "channels": 6, "latents": [4, 3, 2], "dilations": [1, 2], "output_layers": 2}),
}


class Recorded:
    """An experiment and what its model was asked to sample: latents, temperatures, samples."""

    def __init__(self, key, monkeypatch):
        name, conf = SYSTEMS[key]
        observation = AudioObservation("mulaw", Statistics(0.0, 0.1))
        torch.manual_seed(0)
        model = build_model(name, conf, 1, build_distribution("dmol", {"components": 2}, observation))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.2 * torch.randn(parameter.shape)
        model.eval().requires_grad_(False)
        self.experiment = Experiment(None, model, observation, None, key, "train")
        self.levels = list(model.latent_sizes)
        self.calls = []
        sample = model.sample

        def recording(frames, noise, inputs_of, state=None, **wanted):
            samples = sample(frames, noise, inputs_of, state, **wanted)
            self.calls.append((noise.keys, wanted, samples))
            return samples

        monkeypatch.setattr(model, "sample", recording)

    def asked(self, groups):
        """Name -> (what was given of each level, what came of it)."""
        names = [item.name for group in groups for item in group.made if item.log_likelihood_nats is not None]
        rows = [
            ({level: z[row] for level, z in wanted["latents"].items()}, {k: z[row] for k, z in samples.latents.items()})
            for _, wanted, samples in self.calls
            for row in range(len(samples.target))
        ]
        return dict(zip(names, rows, strict=True))


@pytest.fixture(params=list(SYSTEMS))
def recorded(request, monkeypatch):
    return Recorded(request.param, monkeypatch)


@pytest.fixture
def originals():
    generator = np.random.default_rng(1)
    return {name: generator.integers(-3000, 3000, 66 + 4 * row).astype(np.int16) for row, name in enumerate("bacde")}


def names(groups, kind, level=""):
    (group,) = (group for group in groups if (group.kind, group.level) == (kind, level))
    return [item.name for item in group.made], [item.name for item in group.page], group.columns


def same(one, other):
    return {level for level in one if torch.equal(one[level], other[level])}


def test_variations_keep_what_they_say(recorded):
    groups = generate.prior_groups(recorded.experiment, 3, FRAMES, seed=4)
    levels, asked = recorded.levels, recorded.asked(groups)
    kinds = [(group.kind, group.level) for group in groups]
    assert kinds == [
        ("prior", ""),
        ("temperature", ""),
        *([("frames", "")] if levels else []),
        *[("resampled", level) for level in levels if len(levels) > 1],
        *[("frozen", level) for level in levels if len(levels) > 2],
    ]
    base = asked["prior_0"][1]
    for group in groups[2:]:
        kept = {
            "frames": set(levels),
            "resampled": set(levels) - {group.level},
            "frozen": {group.level},
        }[group.kind]
        drawn = [asked[item.name][1] for item in group.made]
        assert len(drawn) == 2
        for item, latents in zip(group.made, drawn, strict=True):
            assert same(latents, base) == kept
            assert item.about == {**({"level": group.level} if group.level else {}), "reference": "prior_0"}
            assert not np.array_equal(item.data, groups[0].made[0].data)
        assert same(*drawn) == kept  # each is another draw
        assert [item.name for item in group.page] == ["prior_0", *(item.name for item in group.made)]
    assert len(recorded.calls) == (2 if levels else 1)


def test_temperatures_share_the_noise_of_the_prior_samples(recorded):
    groups = generate.prior_groups(recorded.experiment, 2, FRAMES, seed=4)
    keys, wanted, _ = recorded.calls[0]
    assert wanted["temperature"].tolist() == [1, 1, 0.5, 0.75, 0.5, 0.75]
    assert [keys.index(key) for key in keys] == [0, 1, 0, 0, 1, 1]
    made, page, columns = names(groups, "temperature")
    assert made == ["temperature_0_0.5", "temperature_0_0.75", "temperature_1_0.5", "temperature_1_0.75"]
    assert page == [*made[:2], "prior_0", *made[2:], "prior_1"] and columns == 3
    assert groups[1].made[3].about == {"temperature": 0.75, "reference": "prior_1"}


def test_resyntheses_and_interpolations_are_of_the_posteriors(recorded, originals):
    groups = generate.utterance_groups(recorded.experiment, originals, seed=4)
    levels = recorded.levels
    if not levels:
        assert groups == []
        return
    ((*_, samples),) = recorded.calls
    assert samples.target.shape[1] == 66  # the shortest
    asked = recorded.asked(groups)
    posterior = {name: asked[f"resynthesis_{name}"][1] for name in originals}
    assert all(same(*asked[f"resynthesis_{name}"]) == set(levels) for name in originals)
    for name in originals:
        for level in levels if len(levels) > 1 else ():
            assert same(asked[f"resynthesis-{level}_{name}"][1], posterior[name]) == set(levels) - {level}
    assert not any(same(posterior["a"], posterior[name]) for name in "bcde")
    made, page, columns = names(groups, "interpolation")
    assert made == page and columns == 5 and len(made) == 10  # a and b, c and d; e has no other
    for number, (first, second) in enumerate(("ab", "cd"), 1):
        for weight in (0, 0.25, 0.5, 0.75, 1):
            latents = asked[f"interpolation_{number}_{weight:g}"][1]
            for level, z in latents.items():
                one, other = posterior[first][level], posterior[second][level]
                torch.testing.assert_close(z, one + weight * (other - one))
                if weight in (0, 1):
                    assert torch.equal(z, other if weight else one)
    (group,) = (group for group in groups if group.kind == "interpolation")
    assert group.made[6].about == {"utterances": ["c", "d"], "weight": 0.25}
    columns_of_a_row = 2 + len(levels) if len(levels) > 1 else 4
    made, page, columns = names(groups, "resynthesis")
    assert columns == columns_of_a_row and page[:2] == ["original_a", "resynthesis_a"]
    assert len(page) == len(made) + len(originals)


def test_posteriors_are_drawn_with_one_noise(recorded, originals):
    """Two equal sequences have equal latents, whatever their names, so that stop_stage precedes stage."""
    if not recorded.levels:
        pytest.skip("no latents")
    generate.utterance_groups(recorded.experiment, {"x": originals["a"], "y": originals["a"]}, seed=4)
    ((_, wanted, _),) = recorded.calls
    for z in wanted["latents"].values():
        assert len(z) >= 7  # the last five are the interpolation
        for between in z[-4:]:
            torch.testing.assert_close(between, z[-5], rtol=1e-3, atol=1e-4)


def test_all_is_keyed_by_the_seed_and_what_is_said_can_be_written(recorded, originals):
    def everything(seed):
        return [
            item
            for group in (
                *generate.prior_groups(recorded.experiment, 2, FRAMES, seed),
                *generate.continuations(recorded.experiment, {u: data[:20] for u, data in originals.items()}, 30, seed),
                *generate.utterance_groups(recorded.experiment, originals, seed),
            )
            for item in group.made
        ]

    one, again, other = everything(1), everything(1), everything(2)
    assert len({item.name for item in one}) == len(one)
    known = {item.name for item in one}
    for a, b, c in zip(one, again, other, strict=True):
        assert (a.name, a.about) == (b.name, b.about) == (c.name, c.about)
        np.testing.assert_array_equal(a.data, b.data)
        if a.log_likelihood_nats is not None:
            assert not np.array_equal(a.data, c.data)
        assert a.about.get("reference", a.name) in known
        json.dumps(a.about)
    for kind, words in generate.DESCRIPTIONS.items():
        assert words.endswith(".") and words.count(". ") == 0, kind
