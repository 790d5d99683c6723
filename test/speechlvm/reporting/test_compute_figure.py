"""Bits over training time: what is drawn, read back from matplotlib before it is saved."""

import math
from pathlib import Path

import numpy as np
import pytest

from speechlvm.coding import PCM_CODINGS
from speechlvm.reporting import compute_figure
from speechlvm.reporting.collect import collect, collect_files

BITS = 150 * math.log(2)  # nats that one bit per frame is in an utterance of write_result's


@pytest.fixture
def write_file(write_file):
    """write_file(experiment, **fields): what compression of 100 frames of `test` at 8 bits each has left."""

    def write(experiment, seed=1, done=True, **fields):
        numbers = {"frames": 100, "model_bits": 800.0, "file_bytes": 100}
        directory = write_file(f"{experiment}/seed{seed}", seed=seed, **{**numbers, **fields})
        if not done:
            (directory / "done.json").unlink()

    return write


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """draw(): the axis that would have been saved; None if there is none."""
    saved = []
    monkeypatch.setattr(compute_figure, "save", lambda figure, stem: saved.append(figure))

    def call():
        root, errors = tmp_path / "exp/train", []
        arguments = collect(root, errors), "test", PCM_CODINGS, collect_files(root, errors)
        compute_figure.compute_figure(Path("x"), *arguments)
        assert errors == []
        return saved[-1].axes[0] if saved else None

    return call


def model(write_result, name, bits, hours, **fields):
    return write_result(name, -bits * BITS, coding="mulaw-pcm", **{"hours": hours, "stack": 64, **fields})


def reference(write_result, name, bits, **fields):
    none = {"hours": None, "steps": None, "coding": "linear"}
    return write_result(name, -bits * BITS, **none, **{"system": name, "bound": "code-length", **fields})


def through(axis, colour):
    """Points of the lines of markers of a colour: hollow and filled ones."""
    lines = [
        line
        for line in axis.lines
        if line.get_color() == colour and line.get_marker() in "osd^v" and line.get_transform() != axis.transAxes
    ]
    hollow = [line.get_xydata().round(9).tolist() for line in lines if line.get_markerfacecolor() == "white"]
    return hollow, [line.get_xydata().round(9).tolist() for line in lines if line.get_markerfacecolor() == colour]


def test_lines_are_references_and_markers_models_and_files(write_result, write_file, draw):
    assert draw() is None
    reference(write_result, "flac", 7.5)
    reference(write_result, "squeeze", 7.0)
    reference(write_result, "adaptive", 6.25, bound="exact")
    reference(write_result, "uniform", 16.0, bound="exact")
    assert draw() is None  # nothing was trained
    model(write_result, "lstm_s64_10min", 9.0, 0.1)
    model(write_result, "lstm_s64_2h", 8.0, 2.0)
    model(write_result, "lstm_s1", 7.25, 1.0, stack=1)
    model(write_result, "cwvae", 8.5, 1.0, system="cwvae", bound="elbo")
    write_result("lstm_s64_2h", -9 * BITS, folder="score_mulaw", coding="mulaw")
    model(write_result, "lstm_other", 5.0, 1.0, folder="score_dev", set="dev")
    write_file("lstm_s64_2h", file_bytes=110)  # 10 % more than its model says of this part
    write_file("cwvae", file_bytes=200, initial_bits=760)
    write_file("lstm_s1", done=False)
    axis = draw()

    lstm, cwvae = compute_figure.STYLES["lstm"][0], compute_figure.STYLES["cwvae"][0]
    hollow, filled = through(axis, lstm)
    assert sorted(hollow) == [[[0.1, 9.0], [2.0, 8.0]], [[1.0, 7.25]]]
    assert filled == [[[2.0, 8.8]]]
    hollow, filled = through(axis, cwvae)
    assert hollow == [[[1.0, 8.5]]] and filled == [[[1.0, 8.925]]]
    arrows = [line.get_xydata().round(9).tolist() for line in axis.lines if "arrow" in str(line.get_marker())]
    assert arrows == [[[1.0, 8.5]]]  # of the bound alone
    whole = [s.round(9).tolist() for c in axis.collections for s in c.get_segments() if s[0][0] == s[1][0] == 1.0]
    assert [[1.0, 8.925], [1.0, 17.0]] in whole
    assert {
        line.get_ydata()[0]
        for line in axis.lines
        if line.get_color() == "0.5" and len(set(line.get_ydata())) == 1 and line.get_transform() != axis.transAxes
    } == {7.5, 7.0, 6.25}
    low, high = axis.get_ylim()
    assert low < 6.25 and 9.0 < high < 10  # what initial bits add may lie outside
    assert axis.get_xscale() == "log" and axis.get_xlabel() == "training time [h]"
    texts = sorted(text.get_text() for text in axis.texts)
    assert texts == [
        "FLAC  7.50", "adaptive, untrained  6.25", "cwvae  ≤ 8.50", "lstm_s1  7.25", "lstm_s64  8.00", "squeeze  7.00",
    ]  # fmt: skip
    [legend] = axis.figure.legends
    assert len(legend.get_texts()) == 4


def test_what_does_not_occur_is_not_explained(write_result, draw):
    model(write_result, "lstm", 9.0, 0.1)
    [legend] = draw().figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["likelihood"]


def test_a_file_is_not_compared_with_a_tighter_bound(write_result, write_file, draw):
    model(write_result, "cwvae", 8.5, 1.0, system="cwvae", bound="iwae-10")
    write_file("cwvae")
    assert through(draw(), compute_figure.STYLES["cwvae"][0]) == ([[[1.0, 8.5]]], [])


def test_labels_are_apart_in_the_order_of_their_lines(write_result, draw):
    for i in range(12):
        model(write_result, f"m{i}", 8 + i / 1000, 1.0, parameters=i)
    axis = draw()
    axis.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in sorted(axis.texts, key=lambda t: int(t.get_text()[1:].split()[0]))]
    assert all(below.y1 <= above.y0 for below, above in zip(boxes, boxes[1:], strict=False))
    bounds = axis.get_window_extent()
    assert bounds.y0 - 10 < boxes[0].y0 and boxes[-1].y1 < bounds.y1 + 10


def test_places_are_spread_no_more_than_needed():
    np.testing.assert_allclose(compute_figure.spread([0.1, 0.5, 0.9], 0.1), [0.1, 0.5, 0.9])
    np.testing.assert_allclose(compute_figure.spread([0.5, 0.5, 0.8], 0.1), [0.45, 0.55, 0.8])
    np.testing.assert_allclose(compute_figure.spread([0.0, 0.0, 0.02], 0.1), [0.0, 0.1, 0.2])
    np.testing.assert_allclose(compute_figure.spread([1.0, 1.0], 0.1), [0.9, 1.0])


def test_every_system_has_a_style_of_its_own():
    from speechlvm.models import MODELS

    assert compute_figure.STYLES.keys() == MODELS.keys()
    for each in zip(*compute_figure.STYLES.values(), strict=True):  # colours, markers
        assert len(set(each)) == len(MODELS)


def test_stage_10_draws_it_for_each_set_with_bits_of_the_signal(write_result, write_file, run, tmp_path):
    model(write_result, "lstm", 9.0, 0.1)
    model(write_result, "lstm", 9.0, 0.1, folder="score_dev", set="dev")
    write_result("lstm", -9 * BITS, folder="score_mulaw", coding="mulaw", set="other")
    write_file("lstm")
    run()
    drawn = {path.name for path in (tmp_path / "exp/train/figures").glob("compute_*")}
    assert drawn == {f"compute_{name}.{ending}" for name in ("test", "dev") for ending in ("png", "pdf")}
