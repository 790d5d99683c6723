"""Film strips and animations of generated human motion, next to real motion.

For each experiment, below <exp>/<model>/seed<k>/motion: films.png and films.pdf (rows of figures at equal distances in
time, each row with its path seen from above), and motion.gif. For all of them together, films.png and films.pdf below
<exp>/motion: real motion, and the first prior sample of each model. Real frames are blue and orange (left and right
limbs), generated ones dark and red. Nothing is drawn twice from the same samples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.animation import PillowWriter
from matplotlib.collections import LineCollection
from motion_features import decode
from skeleton import Joint, Motion, Skeleton, joint_positions, rotation

from speechlvm.bin.cli import make_parser, run_main
from speechlvm.data.dumps import open_dump
from speechlvm.reporting.figures import save
from speechlvm.reporting.pictures import new_figure
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import hash_file, is_done, mark_done, mark_undone, read_json

FIGURES = 12
CONTINUED, PRIOR = 2, 3
SEEN_FROM_DEGREES = 60
ANIMATED_HZ = 15
COLOURS = {True: ("0.15", "tab:red", "0.5"), False: ("tab:blue", "tab:orange", "0.6")}
"""Of left limbs, right limbs and the rest: generated frames, real ones."""


@dataclass(frozen=True)
class Film:
    """One motion to draw.

    Attributes:
        title: of its row.
        positions: (T, J, 3), of all joints.
        begin: first generated frame.
    """

    title: str
    positions: np.ndarray
    begin: int


class Bodies:
    """Turns frames of a dump back into bodies.

    Args:
        dump: directory of the test set's dump.

    Raises:
        UserError: the data directories that it was made from are missing or have changed.
    """

    def __init__(self, dump: Path) -> None:
        self.dump = open_dump(dump)
        path = Path(self.dump.info["source"]).parent / "motion.json"
        content = read_json(path)
        self.channels: list[str] = content["channels"]
        self.left_out: dict[str, float] = content["left_out"]
        if list(self.dump.channels) != [name for name in self.channels if name not in self.left_out]:
            raise UserError(f"{path}: other channels than those of {dump}; run stages 1 and 2 again")
        self.skeletons = {
            subject: Skeleton(tuple(Joint(**joint) for joint in joints))
            for subject, joints in content["skeletons"].items()
        }
        # the joints are the same in all, so colours and links are too
        self.joints = next(iter(self.skeletons.values())).joints
        self.sides = _sides(self.joints)

    def positions(self, values: np.ndarray, name: str) -> np.ndarray:
        """(T, J, 3) of frames (T, C), in the body of whoever moves in sequence `name`."""
        columns = iter(np.asarray(values, dtype=np.float64).T)
        whole = [
            np.full(len(values), self.left_out[name]) if name in self.left_out else next(columns)
            for name in self.channels
        ]
        motion: Motion = decode(np.stack(whole, axis=1))
        return joint_positions(self.skeletons[name.partition("_")[0]], motion)


def _sides(joints: tuple[Joint, ...]) -> list[int]:
    """0 for joints of the left side, 1 for those of the right, 2 between: by where they are in the rest pose."""
    places = np.zeros((len(joints), 3))
    for index, joint in enumerate(joints[1:], 1):
        places[index] = places[joint.parent] + joint.offset
    least = 0.04 * np.ptp(places[:, 1])
    return [2 if abs(x) < least else int(x < 0) for x in places[:, 0]]


def _draw_body(axis, bodies: Bodies, places: np.ndarray, generated: bool, width: float) -> LineCollection:
    """Draws the links between one frame's joints (J, 2)."""
    links = np.stack([places[[joint.parent for joint in bodies.joints[1:]]], places[1:]], axis=1)
    colours = [COLOURS[generated][side] for side in bodies.sides[1:]]
    return axis.add_collection(LineCollection(links, colors=colours, linewidths=width, capstyle="round"))


def _seen(positions: np.ndarray) -> np.ndarray:
    """(T, J, 2): joints as seen from one side, a little in front of where the body headed at first; x to the right."""
    return (positions @ rotation("y", np.array([[SEEN_FROM_DEGREES]]))[0].T)[..., :2]


def draw_films(stem: Path, bodies: Bodies, films: list[Film], title: str, rate_hz: float) -> None:
    """One row per film: figures side by side, standing where they are, and the path of the root seen from above."""
    seen = [_seen(film.positions) for film in films]
    height = max(np.median(np.ptp(places[..., 1], axis=1)) for places in seen)
    # one scale for all rows; a sample that flies away leaves the page
    low, high = -0.35 * height, min(2 * height, max(places[..., 1].max() for places in seen))
    step, width = 0.75 * height, (0.75 * FIGURES + 0.15) * height
    row = 11.3 * (high - low) / width
    figure = new_figure(figsize=(13, (row + 0.25) * len(films) + 0.4), layout="constrained")
    grid = figure.subplots(len(films), 2, squeeze=False, width_ratios=(11.3, 1.5))
    for (axis, path), film, places in zip(grid, films, seen, strict=True):
        chosen = np.linspace(0, len(places) - 1, min(FIGURES, len(places))).round().astype(int)
        for place, frame in enumerate(chosen):
            shift = np.array([place * step - places[frame, 0, 0], 0])
            _draw_body(axis, bodies, places[frame] + shift, frame >= film.begin, 1.3)
            axis.text(place * step, -0.05 * height, f"{frame / rate_hz:.1f} s", ha="center", va="top", fontsize=7)
        axis.axhline(0, color="0.8", linewidth=0.6, zorder=0)
        axis.set_aspect("equal")
        axis.set_xlim(-0.5 * step, width - 0.5 * step)
        axis.set_ylim(low, high)
        axis.set_axis_off()
        axis.set_title(film.title, fontsize=8, loc="left")
        _draw_path(path, film, height)
    figure.suptitle(f"{title} (left and right limbs: blue and orange recorded, dark and red generated)", fontsize=10)
    save(figure, stem)


def _draw_path(axis, film: Film, height: float) -> None:
    """Where the root goes, seen from above, heading up the page at first."""
    ground = film.positions[:, 0][:, [0, 2]]
    for part, generated in ((ground[: film.begin + 1], False), (ground[film.begin :], True)):
        axis.plot(part[:, 0], part[:, 1], color=COLOURS[generated][0], linewidth=1)
    axis.plot(*ground[0], marker="o", markersize=3, color="0.4")
    middle, half = (ground.min(0) + ground.max(0)) / 2, max(height, np.ptp(ground, axis=0).max()) / 1.8
    axis.set_xlim(middle[0] + half, middle[0] - half)  # x is to the left of who walks up the page
    axis.set_ylim(middle[1] - half, middle[1] + half)
    axis.set_aspect("equal")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(f"from above, {2 * half / height:.1f} heights wide", fontsize=6)


def animate(path: Path, bodies: Bodies, films: list[Film], title: str, rate_hz: float) -> None:
    """All films side by side as an animated GIF, the camera following each root along the ground."""
    every = max(1, round(rate_hz / ANIMATED_HZ))
    seen = [_seen(film.positions) for film in films]
    seen = [places - places[:, :1] * [1, 0] for places in seen]
    half = max(np.abs(places[..., 0]).max() for places in seen)
    low, high = min(0, *(places[..., 1].min() for places in seen)), max(places[..., 1].max() for places in seen)
    low, high = max(low, -half), min(high, 4 * half)  # a sample that flies away leaves the picture
    shifts = 2 * half * np.arange(len(films))
    figure = new_figure(figsize=(2.1 * len(films), 0.4 + 1.05 * (high - low) / half))
    axis = figure.add_axes((0, 0.02, 1, 0.88))
    axis.set(xlim=(-half, shifts[-1] + half), ylim=(low, high), xticks=[], yticks=[], aspect="equal")
    axis.set_axis_off()
    axis.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    for film, shift in zip(films, shifts, strict=True):
        axis.text(shift, high, film.title, fontsize=6, ha="center", va="top")
    heading = figure.text(0.5, 0.95, "", fontsize=7, ha="center", va="center")
    temporary = path.with_name(f".{path.stem}.tmp.gif")
    writer = PillowWriter(fps=max(1, round(rate_hz / every)))
    with writer.saving(figure, str(temporary), 70):
        for frame in range(0, max(map(len, seen)), every):
            now = [min(frame, len(places) - 1) for places in seen]
            drawn = [
                _draw_body(axis, bodies, places[at] + [shift, 0], at >= film.begin, 1.6)
                for film, places, at, shift in zip(films, seen, now, shifts, strict=True)
            ]
            heading.set_text(f"{title}: {frame / rate_hz:.1f} s")
            writer.grab_frame()
            for body in drawn:
                body.remove()
    temporary.replace(path)


def films_of(samples: Path, bodies: Bodies) -> tuple[list[Film], list[Film]]:
    """Of an experiment: real sequences each followed by its continuation, and prior samples."""
    continued, prior = [], []
    first = sorted(bodies.dump.records)[0]
    for entry in read_json(samples / "samples.json"):
        if entry["kind"] not in ("continuation", "prior"):
            continue
        values = np.load(samples / f"{entry['name']}.npy")
        if entry["kind"] == "prior":
            prior.append(Film(f"{entry['name']} (body of {first})", bodies.positions(values, first), 0))
            continue
        name = entry["name"].removeprefix("continuation_")
        real = bodies.dump.read(name)[: len(values)]
        continued.append(Film(f"real {name}", bodies.positions(real, name), len(real)))
        continued.append(Film(f"continued {name}", bodies.positions(values, name), entry["marks"][0]))
    return continued[: 2 * CONTINUED], prior[:PRIOR]


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and draws."""
    parser = make_parser(__doc__)
    parser.add_argument("--exp", type=Path, required=True, help="experiments of the training set")
    parser.add_argument("--dump", type=Path, required=True, help="dump of the test set")
    parser.add_argument("--models", required=True, help="names of experiments")
    parser.add_argument("--seeds", required=True, help="random seeds of the experiments")
    arguments = parser.parse_args(argv)
    bodies = Bodies(arguments.dump)
    rate_hz = bodies.dump.rate_hz
    overview: list[Film] = []
    indices = {}
    for model in arguments.models.split():
        for seed in arguments.seeds.split():
            home = arguments.exp / model / f"seed{seed}"
            indices[f"{model}/{seed}"] = hash_file(home / "samples" / "done.json")
            continued, prior = films_of(home / "samples", bodies)
            if not overview:
                overview += continued[:1]
            overview += [replace(film, title=f"{model}, seed {seed}: {film.title}") for film in prior[:1]]
            draw(home / "motion", bodies, [*continued, *prior], f"{model}, seed {seed}", indices[f"{model}/{seed}"])
    pages = arguments.exp / "motion"
    if not is_done(pages, indices):
        mark_undone(pages)
        draw_films(pages / "films", bodies, overview, "prior samples of each model, below real motion", rate_hz)
        mark_done(pages, indices)
        print(f"{pages}: {len(overview)} rows")
    return 0


def draw(directory: Path, bodies: Bodies, films: list[Film], title: str, samples: str) -> None:
    """The films of an experiment, unless they were drawn from the same samples."""
    inputs = {"samples": samples, "dump": bodies.dump.info["data_hash"]}
    if is_done(directory, inputs):
        print(f"{directory}: complete")
        return
    mark_undone(directory)
    draw_films(directory / "films", bodies, films, title, bodies.dump.rate_hz)
    animate(directory / "motion.gif", bodies, films, title, bodies.dump.rate_hz)
    mark_done(directory, inputs)
    print(f"{directory}: {len(films)} films")


if __name__ == "__main__":
    run_main(main)
