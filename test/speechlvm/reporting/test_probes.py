import pytest

from speechlvm.reporting import probes


def result(source, names, minutes=(10.0, 60.0), metrics=("phone_error_rate", "accuracy")):
    rows = [
        {
            "task": {"accuracy": "frames"}.get(metric, "phones"),
            "representation": name,
            "size": f"{m:g}",
            "minutes": m,
            "seeds": 3,
            metric: 0.5 - 0.01 * i,
            f"{metric}_std": 0.02 if m == 10.0 else None,
        }
        for i, name in enumerate(names)
        for metric in metrics
        for m in minutes
    ]
    empty = {"train": [], "valid": [], "test": []}
    tasks = {
        "phones": {
            "minutes": {"train": 61.26},
            "unlabelled": {**empty, "test": ["t0"]},
            "too_short": {**empty, "train": ["a", "b", "c", "d"]},
            "same_as_all": ["100"],
            "chance": {"accuracy": 0.2},
        }
    }
    return {"source": source, "representations": dict.fromkeys(names), "tasks": tasks, "summary": rows}


@pytest.fixture
def drawn(monkeypatch):
    """The figure that was saved last."""
    figures = []
    monkeypatch.setattr(probes, "save", lambda figure, stem: figures.append(figure))
    return figures


def test_a_panel_for_each_error_and_a_line_for_each_representation(drawn, tmp_path):
    probes.probes_figure(tmp_path / "f", [result("m", ["z1", "z2", "h"]), result("spectra", ["logmel"])])
    panels = drawn[0].axes
    assert [axis.get_ylabel() for axis in panels] == [probes.TITLES[m] for m in ("phone_error_rate", "accuracy")]
    for axis in panels:
        handles, labels = axis.get_legend_handles_labels()
        lines = dict(zip(labels, handles, strict=True))
        if axis is panels[1]:
            assert list(lines.pop("chance").get_ydata()) == [80.0, 80.0]
        assert list(lines) == ["z1", "z2", "h", "logmel"]
        styles = [handle.lines[0].get_linestyle() for handle in lines.values()]
        assert styles == ["-", "-", "-", "--"]
    line = panels[1].containers[1].lines[0]  # errors, not accuracies
    assert line.get_xydata().tolist() == [[10.0, pytest.approx(51.0)], [60.0, pytest.approx(51.0)]]


def test_one_size_is_drawn_as_bars(drawn, tmp_path):
    probes.probes_figure(tmp_path / "f", [result("m", ["z1", "z2"], minutes=(10.0,)), result("s", ["mel"], (10.0,))])
    for axis in drawn[0].axes:
        assert [label.get_text() for label in axis.get_yticklabels()] == ["z1", "z2", "mel"]
        assert [bar.get_width() for bar in axis.patches] == pytest.approx(
            [50.0, 49.0, 50.0] if "rate" in axis.get_xlabel() else [50.0, 51.0, 50.0]
        )
    [chance] = drawn[0].axes[1].get_legend_handles_labels()[0]
    assert chance.get_xdata()[0] == 80.0 < drawn[0].axes[1].get_xlim()[1]


def test_what_was_left_out_is_said():
    lines = probes.describe(result("m", ["z1"])).splitlines()
    assert lines[:4] == [
        "phones: train: 4 utterances: too short: a, b, c, ...",
        "phones: test: 1 utterance: no labels: t0",
        "phones: 100 minutes: 61.3 are there, the same as all",
        "phones: z1, 10 (10.0 min): phone error rate 50.0 +- 2.0 %",
    ]
    assert lines[-1] == "frames: z1, 60 (60.0 min): accuracy 50.0 %"
