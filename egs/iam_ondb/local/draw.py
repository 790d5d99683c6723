"""Pages of handwriting as PNG and PDF: one per model, and source B's figure 3, real lines next to those of all models.

    <exp>/handwriting/<model>_seed<k>      everything that stage 5 wrote: samples from the prior, continuations (the
                                           real beginning in grey), originals and reconstructions
    <exp>/handwriting/figure3              lines of the set and prior samples of each model

A sequence of frames (pen, dx, dy) starts at a point of its own; its frames are the offsets to the points after it.
"""

from pathlib import Path

import numpy as np

from speechlvm.bin.cli import make_parser, run_main
from speechlvm.bin.inputs import check_done
from speechlvm.data.dumps import open_dump
from speechlvm.utils.files import hash_file, is_done, mark_done, mark_undone, read_json

SHOWN = ("prior", "continuation", "reconstruction")
LINES = 6
GAP = 0.3
PAGE_INCHES = 8.0
TALLEST_INCHES = 40.0

Line = tuple[str, np.ndarray, int]
"""Name to write above a sequence, its frames, and how many of them are drawn in grey."""


def strokes_of(frames: np.ndarray) -> list[np.ndarray]:
    """Strokes, (N, 2) points each, of frames (T, 3) (pen, dx, dy); T + 1 points in all, the first at the origin."""
    points = np.concatenate([np.zeros((1, 2)), np.cumsum(frames[:, 1:].astype(np.float64), axis=0)])
    ends = np.flatnonzero(frames[:, 0] > 0.5) + 2
    return [stroke for stroke in np.split(points, ends) if len(stroke)]


def extent(frames: np.ndarray) -> np.ndarray:
    """Width and height of a sequence, a unit at least."""
    return np.ptp(np.concatenate(strokes_of(frames)), axis=0) + 1.0


def draw_lines(axis, lines: list[Line]) -> None:
    """Draws sequences below each other, to one scale; y grows downwards, as on the whiteboard."""
    top, gap = 0.0, GAP * float(np.median([extent(frames)[1] for _, frames, _ in lines]))
    for name, frames, grey in lines:
        strokes = strokes_of(frames)
        corner = np.concatenate(strokes).min(0)
        drawn = 0
        for stroke in strokes:
            place = stroke - corner + (0.0, top)
            real = min(len(place), max(0, grey + 1 - drawn)) if grey else 0
            parts = [(place[:real], "0.6"), (place[max(real - 1, 0) :], "black")]
            for part, colour in parts if real < len(place) else parts[:1]:
                # a single point is a dot
                axis.plot(*part.T, color=colour, linewidth=0.7, marker="." if len(part) == 1 else None, markersize=1.5)
            drawn += len(stroke)
        axis.text(0, top - 0.1 * gap, name, fontsize=5, color="tab:blue")
        top += extent(frames)[1] + gap
    axis.set_aspect("equal", anchor="N")
    axis.invert_yaxis()


def draw_panels(stem: Path, panels: list[tuple[str, list[Line]]], columns: int) -> None:
    """Panels (title, sequences) side by side and below each other, each to a scale of its own: PNG and PDF."""
    from speechlvm.reporting.figures import save
    from speechlvm.reporting.pictures import new_figure

    extents = [np.array([extent(frames) for _, frames, _ in lines]) for _, lines in panels]
    ratios = [(1 + GAP) * sizes[:, 1].sum() / sizes[:, 0].max() for sizes in extents]
    rows = [max(ratios[i : i + columns]) for i in range(0, len(panels), columns)]
    inches = min(TALLEST_INCHES, PAGE_INCHES / columns * sum(rows) + 0.4 * len(rows))
    figure = new_figure(figsize=(PAGE_INCHES, inches), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False, height_ratios=rows)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (title, lines) in zip(axes.flat, panels, strict=False):
        draw_lines(axis, lines)
        axis.set_title(title, fontsize=8)
    save(figure, stem)


def main(argv: list[str] | None = None) -> int:
    """Draw the samples of some experiments."""
    parser = make_parser(__doc__)
    parser.add_argument("--exp", type=Path, required=True, help="exp/<train_set>")
    parser.add_argument("--dump", type=Path, required=True, help="dump that real lines come from")
    parser.add_argument("--models", required=True, help="names of experiments, 'a b'")
    parser.add_argument("--seeds", default="1", help="random seeds of the experiments")
    arguments = parser.parse_args(argv)
    check_done(arguments.dump)
    names = [f"{model}/seed{seed}" for model in arguments.models.split() for seed in arguments.seeds.split()]
    out = arguments.exp / "handwriting"
    inputs = {name: hash_file(arguments.exp / name / "samples" / "done.json") for name in names}
    inputs["dump"] = hash_file(arguments.dump / "info.json")
    if is_done(out, inputs):
        print(f"{out}: complete")
        return 0
    mark_undone(out)
    dump = open_dump(arguments.dump)
    utterances = sorted(dump.records)[:: max(1, len(dump.records) // LINES)][:LINES]
    panels = [("ground truth", [("", dump.read(utterance), 0) for utterance in utterances])]
    for name in names:
        samples = arguments.exp / name / "samples"
        index = [item for item in read_json(samples / "samples.json") if item["kind"] in SHOWN]
        arrays = [np.load(samples / f"{item['name']}.npy") for item in index]
        marks = [max(item["marks"], default=0) for item in index]
        lines = [(item["name"], array, mark) for item, array, mark in zip(index, arrays, marks, strict=True)]
        draw_panels(out / name.replace("/", "_"), [(name, lines)], 1)
        prior = [("", array, 0) for item, array in zip(index, arrays, strict=True) if item["kind"] == "prior"]
        panels.append((name, prior[:LINES]))
    draw_panels(out / "figure3", panels, 2)
    mark_done(out, inputs)
    print(f"{out}: {len(names) + 1} pages")
    return 0


if __name__ == "__main__":
    run_main(main)
