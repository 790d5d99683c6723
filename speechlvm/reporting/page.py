"""The page of an experiment: one self-contained HTML file with all sounds, figures and tables.

It is made from what the stages have left in the experiment's directory; what a stage has not made is said on it.
"""

from __future__ import annotations

import glob
import re
from importlib import resources
from pathlib import Path
from typing import Any

from speechlvm import __version__
from speechlvm.data.audio import audio_info, read_audio
from speechlvm.reporting import latent_tables
from speechlvm.reporting.analysis_results import ANALYSES, Findings, findings_of
from speechlvm.reporting.collect import Cell, learning_curves, scores_of
from speechlvm.reporting.compare import output
from speechlvm.reporting.figures import SIGNS, curves_figure
from speechlvm.reporting.formats import Column
from speechlvm.reporting.html import Markup, data_uri, element, join, policy, table
from speechlvm.reporting.render import LN2, number
from speechlvm.reporting.sounds import Sample, player, read_samples
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import files_below, hash_file, hash_value

PAGE = "index.html"
PICTURES = {".png": "image/png", ".gif": "image/gif"}
INPUTS = (".json", ".jsonl", ".yaml", ".wav", *PICTURES)
WITH_SECTIONS = ("samples", "analysis", "probes")
NOT_SHOWN = ("checkpoints", "figures", "logs", "tb", "latents_")  # figures: what the page itself draws
STAMP = re.compile(r'<meta name="inputs" content="(\w+)">')

HEADINGS = {
    "prior": "Prior samples",
    "temperature": "Other temperatures",
    "frames": "Frames drawn anew",
    "resampled": "One level drawn anew",
    "frozen": "One level kept",
    "continuation": "Continuations",
    "reconstruction": "Reconstructions",
    "resynthesis": "Resyntheses",
    "interpolation": "Interpolations",
}
CAPTIONS = {
    "learning_curve": "Score on the validation set over training time",
    "accuracy": "Accuracy of k nearest neighbours over k",
    "clusters": "Items in the space of a linear discriminant analysis",
    "levels": "KL, units in use and autocorrelation of each level",
    "error_rates": "Error rates over the amount of labelled speech",
}
SCORES = [
    *(Column(name) for name in ("set", "coding")),
    *(Column(name, number=True) for name in ("likelihood", "95 % interval")),
    Column("bound"),
    *(Column(name, number=True) for name in ("KL", "utterances", "frames")),
]
KEYS = [
    ("Tab", "next kind of sounds"), ("arrows, Home, End", "from sound to sound"), ("Space or Enter", "play and pause"),
    ("Shift and arrows", "half a second back and on"), ("Esc", "stop"),
]  # fmt: skip


class Page:
    """What is shown of one experiment.

    Args:
        exp: its directory: exp/<train_set>/<experiment>/seed<k>, or exp/<train_set>/spectra.
        title: of the page; "" for the experiment's name.

    Attributes:
        name: experiment/seed<k>, or spectra.
        trained: whether it is of a model, and not of spectra.
        errors: a line for each file that cannot be used, known once `html` has been made.
    """

    def __init__(self, exp: Path, title: str = "") -> None:
        self.exp, self.errors = Path(exp), []
        *_, before, experiment, last = ("", "", *self.exp.absolute().parts)
        self.trained = last.startswith("seed")
        self.name = f"{experiment}/{last}" if self.trained else last
        self.title = title or (f"{self.name}, trained on {before}" if self.trained else f"{last} of {experiment}")

    def inputs(self) -> str:
        """A hash of all that the page is a function of."""
        files = [
            (str(path.relative_to(self.exp)), path)
            for path in files_below(self.exp)
            if path.suffix in INPUTS and not path.name.startswith((".", "shard."))
        ]
        hashes = {
            name: hash_file(path) for name, path in sorted(files) if path.is_file() and not name.startswith(NOT_SHOWN)
        }
        return hash_value([__version__, self.title, _packaged("page.css"), _packaged("page.js"), hashes])

    def is_made(self) -> bool:
        """Whether index.html was made from these very inputs."""
        try:
            with open(self.exp / PAGE, encoding="utf-8") as stream:
                found = STAMP.search(stream.read(4096))
        except (OSError, UnicodeDecodeError):
            return False
        return found is not None and found[1] == self.inputs()

    def html(self) -> str:
        """The whole file; the same inputs give the same bytes. With errors it is not marked as made."""
        cells, errors = scores_of(self.exp)
        findings, more = findings_of(self.exp)
        self.errors = errors + more
        sections = {
            "Model": self._model(cells),
            "Scores": self._scores(cells),
            "Training": self._training(),
            "Samples": self._samples(),
            "Latents": self._latents(findings),
            "Probes": self._probes(findings),
            "More pictures": self._more_pictures(),
        }
        sections = {heading: content for heading, content in sections.items() if content}
        style, script = _packaged("page.css"), _packaged("page.js")
        head = element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", name="inputs", content="" if self.errors else self.inputs()),
            element("meta", http_equiv="Content-Security-Policy", content=policy(style, script)),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("link", rel="icon", href="data:,"),
            element("title", self.title),
            element("style", Markup(style)),
        )
        links = [element("li", element("a", heading, href=f"#{_anchor(heading)}")) for heading in sections]
        main = [
            element("section", element("h2", heading, id=_anchor(heading)), content, aria_labelledby=_anchor(heading))
            for heading, content in sections.items()
        ]
        errors = [element("p", f"Left out: {error}.", class_="error") for error in self.errors]
        body = element(
            "body",
            element("a", "Skip to the contents", class_="skip", href="#main"),
            element("header", element("h1", self.title), element("nav", element("ul", links), aria_label="Sections")),
            element("main", errors, main, id="main", tabindex=-1),
            element("script", Markup(script)),
        )
        return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"

    # --- sections: what they show, None where they have no place on the page -----------------------------------------

    def _missing(self, what: str, stage: str, pronoun: str = "them") -> Markup:
        return element("p", f"No {what} yet: stage {stage} makes {pronoun}.", class_="missing")

    def _model(self, cells: list[Cell]) -> Markup | None:
        if not self.trained:
            return None
        path = self.exp / "config.yaml"
        if not path.exists():
            return self._missing("model", "3 (train)", "it")
        text = path.read_text(encoding="utf-8", errors="replace")
        facts = dict(re.findall(r"^(model|coding|distribution): *(\S.*)$", text, re.M))
        for cell in cells[:1]:
            facts["distribution"], facts["parameters"] = output(cell), f"{cell.first.parameters:,}".replace(",", " ")
        rows = [(element("dt", key), element("dd", value)) for key, value in facts.items()]
        settings = element("details", element("summary", "Settings (config.yaml)"), element("pre", text, tabindex=0))
        return join([element("dl", rows), settings])

    def _scores(self, cells: list[Cell]) -> Markup | None:
        if not self.trained:
            return None
        if not cells:
            return self._missing("scores", "4 (score)")
        caption = "Likelihoods: of bits less is better, of nats more"
        return table(SCORES, [score_row(cell) for cell in cells], caption)

    def _training(self) -> Markup | None:
        if not self.trained:
            return None
        curves, errors = learning_curves(self.exp.absolute().parents[1], glob.escape(self.name))
        self.errors += errors
        if not curves:
            return self._missing("learning curve", "3 (train)", "it")
        [entries] = curves.values()
        field = "nats_per_frame" if entries[0]["bits_per_frame"] is None else "bits_per_frame"
        best = max(entries, key=lambda entry: entry["nats_per_frame"])
        stem = self.exp / "figures" / "learning_curve"
        curves_figure(stem, {self.name: entries}, field)
        words = (
            f"Best on the validation set after {best['step']} steps and {best['seconds'] / 60:.1f} min of training: "
            f"{best[field]:.3f} {field.replace('_', ' ')}; ended after {entries[-1]['step']} steps and "
            f"{entries[-1]['seconds'] / 60:.1f} min."
        )
        return join([element("p", words), self._pictures([stem.with_name("learning_curve.png")])])

    def _samples(self) -> Markup | None:
        if not self.trained:
            return None
        folder = self.exp / "samples"
        samples = self._read(folder) if (folder / "done.json").exists() else []
        if not samples:
            return self._missing("samples", "5 (sample and reconstruct)")
        groups: dict[tuple[str, str], list[Sample]] = {}
        for sample in samples:
            groups.setdefault((sample.kind, sample.picture or f"{sample.kind}.png"), []).append(sample)
        parts: list[Any] = []
        if any(folder.glob("*.wav")):
            keys = [(element("kbd", key), f" {effect}; ") for key, effect in KEYS[:-1]]
            keys += [(element("kbd", key), f" {effect}.") for key, effect in KEYS[-1:]]
            parts.append(element("p", "Keys: ", keys, class_="keys soft", hidden=True))
        for (kind, picture), members in groups.items():
            level = {member.level for member in members}
            heading = HEADINGS.get(kind, _words(kind)) + (f": {level.pop()}" if len(level) == 1 and any(level) else "")
            parts += [element("h3", heading), element("p", members[0].description, class_="soft")]
            sounds = [self._sound(member) for member in members]
            if any(sounds):
                parts.append(element("div", sounds, class_="sounds", role="group", aria_label=heading))
            else:
                parts.append(self._pictures([folder / picture]))
        return join(parts)

    def _read(self, folder: Path) -> list[Sample]:
        try:
            return read_samples(folder / "samples.json")
        except UserError as error:
            self.errors.append(str(error))
            return []

    def _sound(self, sample: Sample) -> Markup | None:
        path = self.exp / "samples" / f"{sample.name}.wav"
        if path.with_name(f"{sample.name}.npy").exists():
            return None
        try:
            rate_hz = audio_info(path).rate_hz
            return player(sample, read_audio(path, rate_hz), rate_hz)
        except UserError as error:
            self.errors.append(str(error))
            return None

    def _latents(self, findings: Findings) -> Markup | None:
        grids = [grid for grid in latent_tables.grids([findings]) if grid.name != latent_tables.PROBES]
        folders = [self.exp / "analysis" / name for name in ANALYSES]
        folders = [path for path in folders if (path / "done.json").exists()]
        if not grids and not folders:
            return self._missing("analyses", "7 (latent analysis)")
        parts: list[Any] = [_grid(grid) for grid in grids]
        for folder in folders:
            pictures = sorted(folder.glob("*.png"))
            notes = [element("li", note) for note in findings.notes.get(folder.name, [])]
            parts += [element("h3", _words(folder.name)), self._pictures(pictures)]
            parts += [element("ul", notes, class_="soft")] if notes else []
        return join(parts)

    def _probes(self, findings: Findings) -> Markup | None:
        grids = [grid for grid in latent_tables.grids([findings]) if grid.name == latent_tables.PROBES]
        if not grids:
            return self._missing("probes", "8 (probes)")
        return join([*map(_grid, grids), self._pictures(sorted((self.exp / "probes").glob("*.png")))])

    def _more_pictures(self) -> Markup | None:
        paths = [
            path
            for path in sorted(self.exp.glob("*/*"))
            if path.suffix in PICTURES and not path.parent.name.startswith((*WITH_SECTIONS, *NOT_SHOWN))
        ]
        return self._pictures(paths) if paths else None

    def _pictures(self, paths: list[Path]) -> Markup:
        figures = []
        for path in paths:
            words = f"{CAPTIONS.get(path.stem, _words(path.stem))} ({path.parent.name})"
            if not path.is_file():
                self.errors.append(f"{path}: missing; run the stage that writes it")
                continue
            source = data_uri(path.read_bytes(), PICTURES[path.suffix])
            figures.append(element("figure", element("img", src=source, alt=words), element("figcaption", words)))
        return element("div", figures, class_="pictures")


def _packaged(name: str) -> str:
    return resources.files("speechlvm.reporting").joinpath(name).read_text(encoding="utf-8")


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _grid(grid: latent_tables.Grid) -> list[Markup]:
    """A table of one experiment, which the page need not name in each row."""
    rows = [[row[0] if row[0] == "chance" else row[1], *row[2:]] for row in grid.rows]
    return [table(grid.columns[1:], rows, grid.title), element("p", grid.note, class_="soft")]


def score_row(cell: Cell) -> list[str]:
    """A row under the heads `SCORES`."""
    result, density = cell.first, cell.first.unit == "density"
    unit = "nats_per_utterance" if density else "bits_per_frame"
    words = "nats per utterance" if density else "bits per frame"
    interval, kl = result.bits_per_frame_interval, cell.kl_nats_per_frame
    return [
        cell.set,
        cell.coding,
        f"{SIGNS[cell.sign]}{number(cell.mean(unit), unit)} {words}",
        f"{interval[0]:.3f} - {interval[1]:.3f}" if interval else "",
        cell.bound,
        "" if kl is None else f"{kl:.3f} nats per frame" if density else f"{kl / LN2:.3f} bits per frame",
        str(result.utterances),
        str(result.frames),
    ]
