import json
import statistics

import pytest

from speechlvm.latents.probes.runs import ProbeRun, Probing, summarise
from speechlvm.utils.errors import UserError


@pytest.fixture
def corpus(tmp_path, known):
    """({set: store}, {set: data directory}): 40 utterances of 1.4 s to train on."""
    return known.write_corpus(tmp_path, known.draw(40))


def test_sizes_are_nested_and_drawn_by_seed(corpus):
    probes = Probing(*corpus, ["phones"], 20)
    of = {
        (size, seed): probes.subset(ProbeRun("z1", "phones", size, seed))
        for size in ("0.2", "0.5", "all")
        for seed in (1, 2)
    }
    for seed in (1, 2):
        small, large, everything = (of[size, seed] for size in ("0.2", "0.5", "all"))
        assert large[: len(small)] == small and set(large) < set(everything) and len(everything) == 40
        assert 0.2 <= probes.minutes(small) < 0.2 + probes.minutes(small[-1:])
    assert of["0.2", 1] != of["0.2", 2]
    assert of["0.2", 1] == Probing(*corpus, ["phones"], 20).subset(ProbeRun("z1", "phones", "0.2", 1))


def test_sizes_beyond_what_there_is_are_all_of_it(corpus):
    probes = Probing(*corpus, ["phones", "frames"], 20)
    there = probes.minutes(probes.tasks["phones"].trainable)
    assert 0.8 < there < 1.2
    plan = probes.plan(["0.1", "60", "1000"], [1, 2])
    assert [(run.task, run.size, run.seed) for run in plan] == [
        (task, size, seed) for task in ("phones", "frames") for size in ("0.1", "all") for seed in (1, 2)
    ]
    assert probes.describe(["0.1", "60", "1000"])["tasks"]["phones"]["same_as_all"] == ["60", "1000"]
    assert probes.coinciding(probes.tasks["phones"], [str(0.91 * there), str(0.89 * there)]) == [str(0.91 * there)]
    assert {run.size for run in probes.plan(["0.1"], [1])} == {"0.1"}


def test_a_part_of_the_training_set_is_not_called_all_of_it(corpus):
    stores, directories = corpus
    names = Probing(*corpus, ["phones"], 20).stores["train"].utterances
    for scp in stores["train"].glob("*.scp"):
        scp.write_text("".join(scp.read_text().splitlines(keepends=True)[:30]))
    info = json.loads((stores["train"] / "info.json").read_text())
    (stores["train"] / "info.json").write_text(json.dumps({**info, "utterances": 30}))
    part = Probing(stores, directories, ["phones"], 20)
    assert {run.size for run in part.plan(["0.1", "0.7"], [1])} == {"0.1", "0.7"}  # 0.7 minutes are all that is there
    drawn = part.subset(ProbeRun("z1", "phones", "0.7", 1))
    assert drawn != names and len(drawn) == 30
    with pytest.raises(UserError, match="only a part of the training set; run stage 6"):
        part.plan(["0.1", "all"], [1])


def test_too_short_utterances_are_not_trained_on(tmp_path, known):
    sets = known.draw()
    values, segments, _ = sets["train"]["train-00"]
    sets["train"]["train-00"] = (
        values[:20],
        [s for s in segments if s.end_sample <= 2560],
        " ".join(["ear key see"] * 9),
    )
    probes = Probing(*known.write_corpus(tmp_path, sets), ["phones", "units"], 20)
    assert "train-00" not in probes.subset(ProbeRun("z1", "units", "all", 1))
    assert "train-00" in probes.subset(ProbeRun("z1", "phones", "all", 1))
    about = probes.describe(["all"])["tasks"]
    assert about["units"]["too_short"]["train"] == ["train-00"] and about["units"]["utterances"]["train"] == 9
    assert about["phones"]["too_short"] == {"train": [], "valid": [], "test": []}


def test_summary():
    runs = [
        {"task": "phones", "representation": "z1", "size": "10", "seed": seed, "minutes": m, "phone_error_rate": p}
        for seed, m, p in ((1, 10.1, 0.3), (2, 10.3, 0.4), (3, 10.2, 0.35))
    ]
    runs.append({**runs[0], "task": "frames", "size": "all", "accuracy": 0.5})
    del runs[-1]["phone_error_rate"]
    first, second = summarise(runs)
    assert first["minutes"] == pytest.approx(10.2) and first["seeds"] == 3
    assert first["phone_error_rate"] == pytest.approx(0.35)
    assert first["phone_error_rate_std"] == pytest.approx(statistics.stdev([0.3, 0.4, 0.35]))
    assert (second["task"], second["accuracy"], second["accuracy_std"]) == ("frames", 0.5, None)
    assert "phone_error_rate" not in second


def test_stores_that_probes_cannot_use(corpus, tmp_path, known):
    stores, data = corpus
    other, _ = known.write_set(tmp_path / "other", "test", known.draw()["test"], source="other")
    with pytest.raises(UserError, match="latents_test: other, .*latents_train: model, .* only sets of one model"):
        Probing({**stores, "test": other}, data, ["phones"], 20)
    with pytest.raises(UserError, match="latents_train: frames have no rate; probes are for speech"):
        Probing(*known.write_corpus(tmp_path / "untimed", known.draw(), rate_hz=None), ["phones"], 20)


def test_sets_are_not_mixed_up(corpus):
    stores, data = corpus
    with pytest.raises(UserError, match=r"data/valid: has no utterance test-00, which .*latents_test has \(4 in all\)"):
        Probing(stores, {**data, "test": data["valid"]}, ["phones"], 20)
