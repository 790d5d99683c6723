"""What stage 10 makes of analyses and probes: means over seeds, tables, a figure; and how damage is reported."""

import json

import pytest

from speechlvm.reporting.analysis_results import collect_analyses, mean_curves
from speechlvm.utils.errors import UserError


@pytest.fixture
def root(tmp_path):
    return tmp_path / "exp" / "train"


def line_of(section, *start):
    for line in section.splitlines():
        cells = [cell.strip() for cell in line[1:-1].split("|")]
        if cells[: len(start)] == list(start):
            return cells
    raise AssertionError(f"no line {start} in {section}")


def section(text, title):
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


LEVELS = "Latent space analysis: information, units in use, time scale"
NEIGHBOURS = "Latent space analysis: phones and speakers"


def test_one_seed_has_intervals(root, run, write_analyses):
    write_analyses(root / "cwvae" / "seed1", {"z1": 0.8, "z2": 0.5})
    write_analyses(root / "spectra", {"mel": 0.9})
    text = run()
    levels, neighbours, probes = (section(text, title) for title in (LEVELS, NEIGHBOURS, "Probes"))
    assert line_of(levels, "cwvae", "z1") == ["cwvae", "z1", "250", "96", "30", "28", "21.500", "7754.4", "42.2", "1"]
    assert line_of(levels, "cwvae", "z2 (collapsed)")[4:8] == ["0", "0", "0.000", "0.0"]
    assert line_of(levels, "spectra", "mel")[4:9] == ["", "", "", "", "42.2"]
    # k = 10: 0.018 less than k = 1; speakers left out: 0.1 less
    assert line_of(neighbours, "cwvae", "z1")[2:] == [
        "78.2 [73.2, 83.2]", "78.2 [73.2, 83.2]", "68.2 [63.2, 73.2]", "78.2 [73.2, 83.2]", "68.2 [63.2, 73.2]",
    ]  # fmt: skip
    assert line_of(neighbours, "chance")[2:] == ["10.0", "60.0", "60.0", "40.0", "40.0"]
    heads = line_of(neighbours, "experiment")
    assert heads[2:4] == ["phones [%]: leave one out", "gender [%]: leave one out"]
    assert "height of women" not in neighbours and "k = 10" in neighbours
    assert "Items (of speakers): phones 40 (4), gender 40 (4), height of men 40 (4)." in neighbours
    assert line_of(probes, "experiment")[2:4] == ["units: unit error rate [%]: 10 min", "all (17.2 min)"]
    assert line_of(probes, "spectra", "mel")[2:] == ["11.0 +-1.4", "11.0 +-1.4", "90.0 +-0.0", "90.0 +-0.0"]


def test_seeds_are_combined(root, run, records, write_analyses):
    write_analyses(root / "cwvae" / "seed1", {"z1": 0.8})
    write_analyses(root / "cwvae" / "seed2", {"z1": 0.6})
    text = run()
    assert line_of(section(text, NEIGHBOURS), "cwvae", "z1")[2] == "68.2 +-14.1"
    assert "standard deviation over seeds" in text
    assert line_of(section(text, LEVELS), "cwvae", "z1")[2:5] == ["250", "96", "30 +-0"]
    assert line_of(section(text, LEVELS), "cwvae", "z1")[6:] == ["21.500 +-0.000", "7754.4 +-0.0", "42.2 +-0.0", "2"]
    gender = [record for record in records("neighbours") if record["subject"] == "gender"]
    assert [record["protocol"] for record in gender] == ["leave_one_out", "leave_one_speaker_out"]
    assert float(gender[1]["accuracy"]) == pytest.approx(0.582)
    assert float(gender[1]["standard_deviation"]) == pytest.approx(0.2 / 2**0.5)
    assert {key: gender[0][key] for key in ("k", "seeds", "low", "chance", "items", "classes")} == {
        "k": "10", "seeds": "2", "low": "", "chance": "0.6", "items": "40", "classes": "2",
    }  # fmt: skip
    [first, *_] = records("probes")
    assert (first["task"], first["score"], first["size"], first["trainings"]) == ("units", "unit_error_rate", "10", "4")
    assert float(first["mean"]) == pytest.approx((0.2 + 0.22 + 0.4 + 0.42) / 4)
    latex = (root / "tables" / "neighbours.tex").read_text()
    assert r"68.2 $\pm$14.1" in latex and r"\multicolumn{2}{c}{gender [\%]}" in latex
    [level] = records("levels")
    assert (level["kl_nats_per_step"], level["kl_nats_per_step_deviation"], level["collapsed"]) == ("21.5", "0.0", "0")


def test_curves_are_means_and_drawn(root, run, write_analyses):
    write_analyses(root / "cwvae" / "seed1", {"z1": 0.8})
    write_analyses(root / "cwvae" / "seed2", {"z1": 0.6})
    write_analyses(root / "spectra", {"mel": 0.9, "mfcc": 0.85})
    write_analyses(root / "stcn" / "seed1", {f"z{level}": 0.5 for level in range(1, 7)})  # more than line styles
    panels = mean_curves(collect_analyses(root, []))
    assert list(panels) == [
        "phones, leave one out",
        "gender, leave one speaker out",
        "height of men, leave one speaker out",
    ]
    first, *_, mel, _ = panels["phones, leave one out"]
    assert (first.experiment, first.representation, len(first.accuracy)) == ("cwvae", "z1", 50)
    assert first.accuracy[9] == pytest.approx(0.682) and mel.accuracy[0] == pytest.approx(0.9)
    run()
    assert sorted(path.name for path in (root / "figures").iterdir()) == ["neighbours.pdf", "neighbours.png"]


def test_what_is_not_reached_and_chance(root, run, records, write_analyses):
    write_analyses(root / "cwvae" / "seed1", {"z1": 0.8})
    path = root / "cwvae" / "seed1" / "analysis" / "levels" / "result.json"
    result = json.loads(path.read_text())
    result["representations"]["z1"] |= {"autocorrelation_ms": None, "autocorrelation": [1.0] * 251}
    path.write_text(json.dumps(result))
    path = root / "cwvae" / "seed1" / "probes" / "result.json"
    result = json.loads(path.read_text())
    frames = {"task": "frames", "representation": "z1", "accuracy": 0.5}
    frames = [{**frames, "size": size, "minutes": m} for size, m in (("all", 80.0), ("60", 60.0), ("2.5", 2.5))]
    result["tasks"]["frames"] = {"chance": {"accuracy": 0.125}}
    path.write_text(json.dumps({**result, "runs": [*result["runs"], *frames]}))
    text = run()
    assert line_of(section(text, LEVELS), "cwvae", "z1")[-2:] == ["> 1000", "1"]
    assert line_of(section(text, "Probes"), "chance")[2:] == ["", "", "", "", "12.5", "12.5", "12.5"]
    heads = line_of(section(text, "Probes"), "experiment")
    assert heads[-3:] == ["frames: accuracy [%]: 2.5 min", "60 min", "all (80 min)"]
    assert "always the commonest phone" in text
    assert records("levels")[0]["autocorrelation_ms"] == ""


def test_nothing_found_leaves_no_trace(root, run, write_analyses):
    write_analyses(root / "cwvae" / "seed1", {"z1": 0.8})
    for name in ("analysis/levels", "analysis/phones", "analysis/gender", "analysis/height", "probes"):
        (root / "cwvae/seed1" / name / "done.json").unlink()  # interrupted
    assert "##" not in run() and [path.name for path in (root / "tables").iterdir()] == ["done.json"]


DAMAGE = {
    "probes": ("{", "probes/result.json: not valid JSON"),
    "analysis/gender": ("[]", "gender/result.json: contents: "),
    "analysis/phones": ({"classes": 3}, "phones/result.json: classes: "),
    "analysis/height": ({"groups": {"men": {}}}, "height/result.json: groups.men.items: field required"),
    "analysis/levels": ({"representations": {"z1": {}}}, "levels/result.json: representations.z1.kind: field required"),
}


def test_damage_is_named_and_all_else_is_written(root, tmp_path, run, write_analyses):
    for name, (damage, _) in DAMAGE.items():
        directory = root / name.replace("/", "_") / "seed1"
        write_analyses(directory, {"z1": 0.8})
        path = directory / name / "result.json"
        value = json.loads(path.read_text())
        path.write_text(damage if isinstance(damage, str) else json.dumps({**value, **damage}))
    with pytest.raises(UserError, match=r"run stage 7 \(latent analysis\) again \(and 4 more; .*RESULTS.md lists all"):
        run()
    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    left_out = [line for line in text.splitlines() if line.startswith("Left out: ")]
    for name, (_, message) in DAMAGE.items():
        [error] = [line for line in left_out if f"/{name}/" in line]
        assert message in error and f"{name} and run stage " in error
        experiment = name.replace("/", "_")
        titles = {"probes": "Probes", "analysis/levels": LEVELS}
        for title in (LEVELS, NEIGHBOURS, "Probes"):
            is_there = f"| {experiment} " in section(text, title)
            assert is_there != (title == titles.get(name)), (name, title)
