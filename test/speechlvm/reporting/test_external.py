"""Results of other programs in tables: the example of MODELS.md, and what cannot be used."""

import json
import math
import re
from pathlib import Path

import pytest

from speechlvm.bin import report
from speechlvm.reporting.tables import load_tables
from speechlvm.utils.errors import ConfigError, UserError
from speechlvm.utils.settings import parse_yaml

PAGE = (Path(__file__).resolve().parents[3] / "MODELS.md").read_text(encoding="utf-8")
[ROW] = parse_yaml(re.findall(r"(?s)```yaml\n(.*?)```", PAGE)[1], "MODELS.md")
RESULT = json.loads(re.findall(r"(?s)```json\n(.*?)```", PAGE)[0])
OURS = {"system": "Ours", "experiment": "ours", "published": {"test": 10.0}}


@pytest.fixture
def recipe(tmp_path, monkeypatch, write_result, write_table):
    """A recipe with one result of its own and one of another program; returns the folder of the latter."""
    write_result("ours", -11 * 150 * math.log(2), coding="mulaw")
    write_table([OURS, ROW], unit="bits_per_frame", coding="mulaw")
    folder = tmp_path / ROW["external"]
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    write(folder)
    return folder


def write(folder, bits=10.5, name="test", **fields):
    """A result of as many frames as ours."""
    nats = -bits * math.log(2)
    numbers = {"frames": 300, "utterances": 2, "bits_per_frame": bits, "nats_per_frame": nats}
    text = json.dumps({**RESULT, **numbers, "nats_per_utterance": 150 * nats, **fields})
    (folder / f"{name}.json").write_text(text)


def line_of(text, system):
    [line] = [line for line in text.splitlines() if f"| {system} " in line]
    return [cell.strip() for cell in line[1:-1].split("|")]


def test_the_example_takes_its_row(recipe, run, records):
    text = run()
    assert line_of(text, "Theirs") == [
        "-", "Theirs", "12 layers", "", "10.500", "", "exact", "", "", "", "https://example.org/paper (2026-01-31)",
    ]  # fmt: skip
    assert line_of(text, "Ours")[4] == "11.000" and "Not comparable" not in text and "changed since" not in text
    assert text.count("Theirs") == 1 and text.count("theirs") == 0  # among the recipe's own scores they are not
    record = next(record for record in records() if record["system"] == "Theirs")
    assert (record["ours"], record["bound"], record["train_set"]) == ("10.5", "exact", "")
    assert record["experiment"] == "https://example.org/paper (2026-01-31)"


def test_the_example_is_consistent():
    assert RESULT["bits_per_frame"] == pytest.approx(-RESULT["nats_per_frame"] / math.log(2), rel=1e-3)
    per_utterance = RESULT["nats_per_frame"] * RESULT["frames"] / RESULT["utterances"]
    assert RESULT["nats_per_utterance"] == pytest.approx(per_utterance, rel=1e-3)


def test_a_changed_result_is_noticed(recipe, run, tmp_path):
    run()
    paths = {"--exp": tmp_path / "exp/train", "--tables": tmp_path / "tables", "--out": tmp_path / "RESULTS.md"}
    words = [str(word) for pair in paths.items() for word in pair]
    assert report.main([*words, "--check"]) == 0
    write(recipe, 9.5)
    assert report.main([*words, "--check"]) == 1
    assert line_of(run(), "Theirs")[4] == "9.500"


def test_other_data_are_marked(recipe, run):
    (recipe / "test.json").write_text(json.dumps(RESULT))
    line = "Not comparable: conf/theirs has 76800000 frames and 1680 utterances of `test`, this recipe 300 and 2."
    assert line in run().splitlines()


def test_another_coding_or_unit_has_no_place(recipe, run):
    write(recipe, coding="linear")
    text = run()
    assert line_of(text, "Theirs")[4] == ""
    line = "Blank: `conf/theirs` has a result of set test, coding linear, unit pmf, which is not in this table."
    assert line in text.splitlines()
    write(recipe, coding="linear", bound="code-length")
    text = run()
    assert line_of(text, "Theirs")[4] == "10.500" and "Blank" not in text


def test_any_bound_has_its_place_and_the_elbo_comes_first(recipe, run):
    write(recipe, bound="iwae-16")
    assert line_of(run(), "Theirs")[4:7] == ["<=10.500", "", "IWAE-16"]
    write(recipe, 10.6, "another", bound="elbo")
    assert line_of(run(), "Theirs")[4:7] == ["<=10.600", "", "ELBO"]


def test_what_cannot_be_used_is_named(recipe, run):
    for fields, message in (
        ({"bound": "about"}, "bound: "),
        ({"frames": 0}, "frames: "),
        ({"bits_per_frame": None}, "contents: bits_per_frame is a number if unit is pmf"),
        ({"unit": "density"}, "contents: bits_per_frame is a number if unit is pmf, and null if it is density"),
        ({"nats_per_frame": -10.5}, "contents: bits_per_frame 10.5 and nats_per_frame -10.5; expected bits = -nats / "),
        ({"nats_per_frame": 7.278}, "contents: bits_per_frame 10.5 and nats_per_frame 7.278; "),
        ({"bits": -10.5}, "contents: bits_per_frame -10.5 and nats_per_frame 7.27"),
        ({"utterances": 3}, "contents: nats_per_utterance -1091.71; 3 utterances of 300 frames together, "),
    ):
        write(recipe, **fields)
        with pytest.raises(
            UserError, match=rf"^conf/theirs/test.json: {message}.*; correct it \(MODELS.md has its shape"
        ):
            run()
    write(recipe)
    write(recipe, name="second")
    twice = r"^conf/theirs/test.json: of test, mulaw, pmf, exact, as conf/theirs/second.json is; keep one of them"
    with pytest.raises(UserError, match=twice):
        run()
    (recipe / "second.json").unlink()
    (recipe / "test.json").unlink()
    with pytest.raises(UserError, match=r"^conf/theirs: no results of another program; expected JSON files"):
        run()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"source": ""},
            "external 'conf/theirs', source '', date '2026-01-31'; expected a directory like conf/",
        ),
        ({"date": ""}, "source 'https://example.org/paper', date ''"),
        ({"external": "/absolute"}, "external '/absolute'"),
        ({"experiment": "ours"}, "give one of experiment, external and minimum_std"),
    ],
)
def test_rows_that_say_too_little_or_too_much(write_table, change, message):
    with pytest.raises(ConfigError, match=message):
        load_tables(write_table([{**ROW, **change}], unit="bits_per_frame", coding="mulaw"))
