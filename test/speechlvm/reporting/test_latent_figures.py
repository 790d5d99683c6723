"""Pictures of comparisons: names that can be read, densities of what does not vary, curves that are not possible."""

import numpy as np
import pytest

from speechlvm.reporting import latent_figures as figures
from speechlvm.reporting.pictures import new_figure


@pytest.fixture
def saved(monkeypatch):
    """Figures by the names of their files, in place of files."""
    found = {}
    monkeypatch.setattr(figures, "save", lambda figure, stem: found.__setitem__(stem.name, figure))
    return found


def test_names_do_not_cover_each_other_and_stay_inside():
    axis = (figure := new_figure(figsize=(6, 5))).add_subplot()
    axis.set(xlim=(0, 1), ylim=(0, 1))
    draws = np.random.default_rng(0)
    points = np.concatenate([0.5 + 0.02 * draws.standard_normal((25, 2)), np.full((5, 2), 0.2), [[3.0, 0.5]]])
    names = [("h#", "ax-h", "s", "ow")[i % 4] for i in range(len(points))]
    figures._write_apart(axis, names, points, ["black"] * len(points))
    boxes = [text.get_window_extent(figure.canvas.get_renderer()) for text in axis.texts]
    frame = axis.get_window_extent()
    for number, box in enumerate(boxes):
        assert frame.x0 - 1 <= box.x0 and box.x1 <= frame.x1 + 1
        for other in boxes[:number]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            down = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert min(across, down) < 0.35 * box.height


def test_far_points_do_not_press_the_others_together():
    axis = new_figure().add_subplot()
    places = np.random.default_rng(1).uniform(-1, 1, (200, 2))
    places[:2] = [[500, 0], [0, -500]]
    assert figures._look_at_most(axis, places) == "2 of 200 points lie outside"
    assert 1 < axis.get_xlim()[1] < 2 and -2 < axis.get_ylim()[0] < -1
    assert figures._look_at_most(axis, places[2:]) == ""


def comparison(labels, places, **curves):
    curve = {"k": [1, 2], "accuracy": [0.5, 0.75], "low": [0.4, 0.6], "high": [0.6, 0.8], "chance": 0.5}
    return {
        "kind": "latent",
        "curves": dict.fromkeys(curves or ("leave_one_out", "fit_on_all"), curve),
        "places": {"labels": labels, "leave_one_out": places, "fit_on_all": places},
    }


def test_densities_overlap_as_the_places_do(tmp_path, saved):
    draws = np.random.default_rng(2)
    labels = ["f"] * 200 + ["m"] * 200
    apart = np.concatenate([draws.standard_normal(200) - 5, draws.standard_normal(200) + 5])[:, None].tolist()
    together = draws.standard_normal((400, 1)).tolist()
    panels = {
        "": {
            "z1": comparison(labels, apart),
            "z2": comparison(labels, together),
            "z3": comparison(labels, [[0.0]] * 400),
        }
    }
    figures.speaker_clusters(tmp_path / "clusters", panels, "note")
    titles = [axis.get_title() for axis in saved["clusters"].axes]
    assert titles[0] == "z1, overlap 0 %"
    assert int(titles[1].split()[2]) > 85
    assert titles[2] == "z3, overlap 100 %"
    assert [axis.get_xlabel() for axis in saved["clusters"].axes] == ["LDA 1 (z1)", "LDA 1 (z2)", "LDA 1 (z3)"]
    assert [text.get_text() for text in saved["clusters"].legends[0].texts] == ["women", "men", "seen by the LDA"]


def test_accuracies_in_percent_with_chance_and_what_is_not_possible(tmp_path, saved):
    some = comparison([], [], leave_one_out=1, leave_one_speaker_out=1)
    panels = {"men": {"z1": some}, "women": {"z1": comparison([], [], leave_one_out=1)}}
    figures.accuracies(tmp_path / "accuracy", panels, "note")
    axes = saved["accuracy"].axes
    assert [axis.get_title() for axis in axes] == [
        "men, leave one out", "men, leave one speaker out", "women, leave one out", "women, leave one speaker out",
    ]  # fmt: skip
    curve, chance = axes[0].lines
    assert (list(curve.get_xdata()), list(curve.get_ydata())) == ([1, 2], [50, 75])
    assert list(chance.get_ydata()) == [50, 50]
    assert [text.get_text() for text in axes[3].texts] == ["not possible"]
    assert (axes[0].get_ylabel(), axes[2].get_xlabel()) == ("accuracy [%]", "neighbours k")


def test_phones_have_the_colour_of_their_manner(tmp_path, saved):
    labels = ["s", "s", "ih", "ih", "??", "??"]
    places = np.random.default_rng(3).standard_normal((6, 5)).tolist()
    figures.phone_clusters(tmp_path / "clusters", {"z1": comparison(labels, places)}, "note")
    figure = saved["clusters"]
    assert [text.get_text() for text in figure.legends[0].texts] == ["fricative", "vowel", "other"]
    written = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    assert written == {"s": "tab:orange", "ih": "tab:blue", "??": "tab:purple"}


def test_a_long_title_does_not_lie_under_the_legend(tmp_path, saved):
    labels = ["s", "s", "affricate or worse", "iy"]
    note = "phones of speaker MBMA1, cwvae_s64_z96_l1 on train, valid, test; LDA fitted on them"
    figures.phone_clusters(tmp_path / "clusters", {"z1": comparison(labels, np.eye(4)[:, :2])}, note)
    figure = saved["clusters"]
    figure.canvas.draw()
    title, legend = figure._suptitle.get_window_extent(), figure.legends[0].get_window_extent()
    assert title.x1 < legend.x0 and "\n" in figure._suptitle.get_text()
