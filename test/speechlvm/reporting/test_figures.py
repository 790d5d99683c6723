"""What figures draw: read back from matplotlib before it is saved."""

import math
from pathlib import Path

import pytest

from speechlvm.reporting import figures
from speechlvm.reporting.analysis_results import MeanCurve
from speechlvm.reporting.collect import collect
from speechlvm.reporting.compare import compare, sweep
from speechlvm.reporting.tables import load_tables

BITS = 150 * math.log(2)  # nats that one bit per frame is in an utterance of write_result's


@pytest.fixture
def axis(monkeypatch):
    """axis(draw, ...): the axis that a function of `figures` would have saved."""
    saved = []
    monkeypatch.setattr(figures, "save", lambda figure, stem: saved.append(figure))

    def call(draw, *arguments):
        draw(Path("x"), *arguments)
        return saved[-1].axes[0]

    return call


def segments(axis):
    """((x, y), (x, y)) of all whiskers, rounded."""
    found = [c.get_segments() for c in axis.collections if hasattr(c, "get_segments")]
    return [tuple(map(tuple, segment.round(6).tolist())) for group in found for segment in group]


def test_bars_are_means_with_intervals_of_one_seed_and_stds_of_several(write_result, tmp_path, axis):
    for seed, bits in ((1, 12.0), (2, 12.2)):
        write_result("vrnn", -bits * BITS, seed, coding="mulaw", bound="elbo")
    write_result("lstm", -13 * BITS, coding="mulaw", bits_per_frame_interval=[12.5, 13.75])
    write_result("vrnn", -11.5 * BITS, folder="score_test_fivo4", coding="mulaw", bound="fivo-4")
    write_result("dmol", -15.5 * BITS, coding="mulaw", system="dmol", bits_per_frame_interval=None)
    write_result("other", -9 * BITS, coding="linear")
    scores = collect(tmp_path / "exp/train", [])
    drawn = axis(figures.bits_figure, scores, "test", ["mulaw"])
    assert [label.get_text() for label in drawn.get_yticklabels()] == ["dmol", "lstm", "vrnn", "vrnn (FIVO-4)"]
    assert [bar.get_width() for bar in drawn.patches] == pytest.approx([15.5, 13.0, 12.1, 11.5])  # the best on top
    assert [text.get_text() for text in drawn.texts] == ["15.50", "13.00", "≤ 12.10", "≤ 11.50"]
    assert [bar.get_facecolor()[:3] == (0.75,) * 3 for bar in drawn.patches] == [True, False, False, False]
    std = 0.2 / math.sqrt(2)
    dmol, lstm, vrnn, _ = segments(drawn)
    assert (dmol, lstm) == (((15.5, 0), (15.5, 0)), ((12.5, 1), (13.75, 1)))
    assert [x for x, _ in vrnn] == pytest.approx([12.1 - std, 12.1 + std], abs=1e-5)
    assert drawn.get_xlim()[0] == pytest.approx(10.5) and "mulaw cells" in drawn.get_xlabel()


def test_a_sweep_has_a_line_for_each_set_and_whiskers_where_there_are_seeds(write_result, write_table, tmp_path, axis):
    for seed, nats in ((1, 10.0), (2, 20.0)):
        write_result("s1", nats, seed, bound="elbo")
    write_result("s3", -30.0, bound="elbo")
    write_result("s1", 5.0, folder="score_dev", set="dev")
    rows = [{"system": "x", "experiment": f"s{at}", "at": at} for at in (3, 2, 1)]
    [table] = load_tables(write_table(rows, axis="layers", sets=["test", "dev"]))
    scores = collect(tmp_path / "exp/train", [])
    drawn = axis(figures.sweep_figure, table, sweep(compare(table, scores, "train")))
    lines = {line.get_label(): line.get_xydata().tolist() for line in drawn.lines if line.get_label()[0] != "_"}
    assert lines == {"test": [[1, 15], [3, -30]], "dev": [[1, 5]]}
    [(low, high)] = segments(drawn)
    assert [*low, *high] == pytest.approx([1, 15 - 5 * math.sqrt(2), 1, 15 + 5 * math.sqrt(2)], abs=1e-5)
    assert drawn.get_xticks().tolist() == [1, 2, 3]
    assert (drawn.get_xlabel(), drawn.get_ylabel()) == ("layers", "≥ nats per utterance")


@pytest.mark.parametrize(("field", "sign"), [("bits_per_frame", 1), ("nats_per_frame", -1)])
def test_learning_curves_go_down_in_both_units(field, sign, axis):
    values = {"a/seed1": [16, 14, 12], "a/seed2": [16, 13, 11], "b/seed1": [16, 15, 14]}
    curves = {run: [{"seconds": 60 * i, field: sign * v} for i, v in enumerate(each)] for run, each in values.items()}
    drawn = axis(figures.curves_figure, curves, field)
    found = [(line.get_label(), line.get_ydata().tolist()) for line in drawn.lines]
    assert [label if label[0] != "_" else "" for label, _ in found] == [
        "b",
        "a (2 seeds)",
        "",
    ]  # the best at the bottom
    assert [y for _, y in found] == [values["b/seed1"], values["a/seed1"], values["a/seed2"]]
    assert drawn.lines[0].get_xdata().tolist() == [0, 1, 2]
    colours = [line.get_color() for line in drawn.lines]
    assert colours[1] == colours[2] != colours[0]
    low, high = drawn.get_ylim()
    assert low < 11 and 14 < high


def test_one_bad_start_does_not_hide_the_rest(axis):
    curves = {
        f"x{i}/seed1": [
            {"seconds": 60 * step, "nats_per_frame": nats} for step, nats in enumerate((start, 1.0, 1.5 + i))
        ]
        for i, start in enumerate((0.0, 0.0, -1e6))
    }
    low, high = axis(figures.curves_figure, curves, "nats_per_frame").get_ylim()
    assert -4 < low < -3.5 and -1.5 < high < 2


def test_more_runs_than_line_styles(axis):
    runs = {f"m{i}/seed1": [{"seconds": 60.0 * i, "bits_per_frame": 12.0 - i} for i in range(3)] for i in range(6)}
    assert len(axis(figures.curves_figure, runs, "bits_per_frame").lines) == 6


def test_kl_has_a_panel_for_each_level(axis):
    terms = {"l1/seed1": {"kl_z1": 0.7}, "l2/seed1": {"kl_z1": 0.6, "kl_z2": 0.0}, "lstm/seed1": {"log_likelihood": 1}}
    curves = {run: [{"seconds": 60.0, "terms_nats_per_frame": of_run}] for run, of_run in terms.items()}
    lower, upper = axis(figures.kl_figure, curves, ["z1", "z2"]).figure.axes
    values = {line.get_label(): line.get_ydata()[0] for line in lower.lines}
    assert values == pytest.approx({"l1": 0.7 / math.log(2), "l2": 0.6 / math.log(2)})
    [line] = upper.lines
    assert line.get_ydata()[0] == figures.LEAST_KL
    assert line.get_color() == lower.lines[1].get_color() != lower.lines[0].get_color()


def test_neighbours_have_a_panel_for_each_subject_and_spectra_in_grey(axis):
    curves = [MeanCurve("m", f"z{level}", [0.5 + 0.1 * level, 0.5], 0.25) for level in range(1, 7)]
    panels = {"phones": [*curves, MeanCurve("spectra", "mel", [0.4, 0.3], 0.25)], "gender": curves[:1]}
    drawn = axis(figures.neighbours_figure, panels)
    *latents, mel, chance = drawn.lines
    assert [line.get_ydata()[0] for line in latents] == pytest.approx([60, 70, 80, 90, 100, 110])
    assert len({line.get_color() for line in latents}) == 1 and len({line.get_linestyle() for line in latents}) > 3
    assert (mel.get_color(), list(mel.get_xdata())) == ("0.1", [1, 2])
    assert list(chance.get_ydata()) == [25, 25]
    [legend] = drawn.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        *(f"m z{level}" for level in range(1, 7)), "spectra mel", "largest class",
    ]  # fmt: skip
    assert [each.get_title() for each in drawn.figure.axes] == ["phones", "gender"]
