"""Probes on features of which is known what can be read from them."""

import math

import numpy as np
import pytest
import torch

from speechlvm.data.kaldi.directory import Interval, load_data_dir
from speechlvm.latents.probes.networks import Recogniser
from speechlvm.latents.probes.runs import ProbeRun, Probing
from speechlvm.latents.probes.training import ProbeSettings
from speechlvm.utils.errors import UserError

CPU = torch.device("cpu")
SETTINGS = ProbeSettings(steps=180, batch_steps=300, hidden=32, learning_rate=0.01)
PHONES_OF_ALL = ProbeRun("z1", "phones", "all", 1)


def probing(known, root, sets, tasks=("phones",), vocabulary=20, **options):
    return Probing(*known.write_corpus(root, sets, **options), tasks, vocabulary)


def test_ten_utterances_are_learned_by_heart(tmp_path, known):
    probes = probing(known, tmp_path, known.draw(10, 10, 10, same=True), tasks=("phones", "units"))
    result = probes.execute(PHONES_OF_ALL, SETTINGS, CPU)
    assert result["phone_error_rate"] == 0.0 == result["valid"]["phone_error_rate"]
    assert result["utterances"] == 10 and 0 < result["best_step"] <= 180
    units = probes.execute(ProbeRun("z1", "units", "all", 1), SETTINGS, CPU)
    assert units["unit_error_rate"] == 0.0 == units["word_error_rate"]


def test_shuffled_labels_cannot_be_read_from_other_utterances(tmp_path, known):
    sets = known.draw()
    true = probing(known, tmp_path / "true", sets).execute(PHONES_OF_ALL, SETTINGS, CPU)
    assert true["phone_error_rate"] < 0.05
    draws = np.random.default_rng(0)
    for items in sets.values():  # the same phones as often, in another order
        for u, (values, segments, text) in items.items():
            labels = draws.permutation([s.label for s in segments])
            items[u] = values, [s._replace(label=str(x)) for s, x in zip(segments, labels, strict=True)], text
    shuffled = probing(known, tmp_path / "shuffled", sets).execute(PHONES_OF_ALL, SETTINGS, CPU)
    # as long a sequence of the same phones in random order has about 60 % of errors
    assert shuffled["phone_error_rate"] > 0.55


def gaussian_steps(steps, distance, seed):
    """Steps of 256 frames, aa or iy at random, whose only feature is +-distance in unit noise."""
    draws = np.random.default_rng(seed)
    second = draws.integers(0, 2, steps)
    values = (2 * second - 1) * distance + draws.standard_normal(steps)
    segments = [Interval(256 * i, 256 * (i + 1), ("aa", "iy")[second[i]]) for i in range(steps)]
    return 100 + 50 * values[:, None], segments, ""


@pytest.mark.parametrize("distance", [0.0, 0.5, 1.0])
def test_a_linear_probe_reaches_the_bayes_accuracy(tmp_path, known, distance):
    sets = {
        name: {f"{name}-{i}": gaussian_steps(1000, distance, 10 * place + i) for i in range(4)}
        for place, name in enumerate(("train", "valid", "test"))
    }
    probes = probing(known, tmp_path, sets, ("frames",), hop=256, labels=("phones",))
    result = probes.execute(ProbeRun("z1", "frames", "all", 1), ProbeSettings(60, 2000, 1, 0.05), CPU)
    bayes = (1 + math.erf(distance / math.sqrt(2))) / 2
    assert result["accuracy"] == pytest.approx(bayes, abs=0.02)  # 4 000 steps: a standard deviation of 0.008


def test_a_linear_probe_cannot_tell_what_lies_on_both_sides(tmp_path, known):
    """aa between two clouds of iy: plain to see, but not for a linear map."""
    sets = known.draw(3, 2, 2)
    for items in sets.values():
        for place, u in enumerate(items):
            _, segments, text = gaussian_steps(400, 0, place)
            sides = np.random.default_rng(50 + place).choice([-1.0, 1.0], 400)
            middle = np.array([s.label == "aa" for s in segments])
            items[u] = np.where(middle, 0.0, sides)[:, None], segments, text
    probes = probing(known, tmp_path, sets, ("frames",), hop=256, labels=("phones",))
    result = probes.execute(ProbeRun("z1", "frames", "all", 1), ProbeSettings(60, 2000, 1, 0.05), CPU)
    assert result["accuracy"] < 0.8


def test_a_run_is_a_function_of_its_seed_alone(tmp_path, known):
    probes, short = probing(known, tmp_path, known.draw()), ProbeSettings(12, 200, 8, 0.01)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = probes.execute(PHONES_OF_ALL, short, CPU)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    probes.execute(ProbeRun("z1", "phones", "all", 2), short, CPU)
    assert probes.execute(PHONES_OF_ALL, short, CPU) == first


def test_a_loss_that_is_not_finite_is_named(tmp_path, known, monkeypatch):
    probes = probing(known, tmp_path, known.draw())
    monkeypatch.setattr(probes.tasks["phones"], "loss", lambda outputs, *_: outputs.sum() * torch.nan)
    with pytest.raises(UserError, match="probe 'phones' of z1, seed 1: loss nan at step 1; try a lower"):
        probes.execute(PHONES_OF_ALL, ProbeSettings(40, 200, 8, 0.01), CPU)


def test_outputs_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    network = Recogniser(3, 5, 4).double().eval()
    features = torch.randn(2, 11, 3, dtype=torch.float64)
    features[1, 7:] = 0.0
    together, lengths = network(features, torch.tensor([11, 7]))
    assert lengths.tolist() == [6, 4]
    alone, _ = network(features[1:, :7], torch.tensor([7]))
    torch.testing.assert_close(together[1:, :4], alone, rtol=0, atol=1e-12)


def test_both_directions_are_used():
    torch.manual_seed(0)
    network = Recogniser(3, 5, 4).eval()
    features = torch.randn(1, 12, 3, requires_grad=True)
    network(features, torch.tensor([12]))[0][0, 3].sum().backward()
    assert (features.grad[0].abs().sum(-1) > 0).all()


def test_labels_are_read_as_data_directories_have_them(tmp_path, known):
    stores, data = known.write_corpus(tmp_path, known.draw())
    task = Probing(stores, data, ["phones"], 20).tasks["phones"]
    phones = load_data_dir(data["test"]).phones
    assert task.references["test"] == {u: [s.label for s in phones[u]] for u in phones}
