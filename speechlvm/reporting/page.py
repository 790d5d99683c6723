"""The page of an experiment: one self-contained HTML file with all sounds, figures and tables.

It is made from what the stages have left in the experiment's directory; what a stage has not made is said on it.
page.html is its template.
"""

from __future__ import annotations

import base64
import glob
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from speechlvm import __version__
from speechlvm.reporting import latent_tables
from speechlvm.reporting.analysis_results import ANALYSES, read_analyses
from speechlvm.reporting.collect import Score, files_of, learning_curves, scores_of
from speechlvm.reporting.document import files_grid, scores_grid
from speechlvm.reporting.figures import curves_figure
from speechlvm.reporting.formats import Grid
from speechlvm.reporting.sounds import Sample, Sound, data_uri, read_samples, read_sound
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import files_below, hash_file, hash_value

PAGE = "index.html"
PICTURES = {".png": "image/png", ".gif": "image/gif"}
INPUTS = (".json", ".jsonl", ".yaml", ".wav", *PICTURES)
PARTS = ("page.html", "page.css", "page.js")
WITH_SECTIONS = ("samples", "analysis", "probes")
NOT_SHOWN = ("checkpoints", "figures", "logs", "tb", "latents_")  # figures: what the page itself draws
STAMP = re.compile(r'<meta name="inputs" content="(\w+)">')

HEADINGS = {
    "prior": "Prior samples",
    "temperature": "Other temperatures",
    "frames": "Redrawn frames",
    "resampled": "One level redrawn",
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


class Picture(NamedTuple):
    """An embedded picture: data URI, and the caption below it."""

    source: str
    caption: str


class Group(NamedTuple):
    """What is shown under one heading: samples of a kind, or the figures of an analysis."""

    heading: str
    pictures: list[Picture]
    description: str = ""
    sounds: Sequence[Sound] = ()
    notes: Sequence[str] = ()


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
        return hash_value([__version__, self.title, *map(_packaged, PARTS), hashes])

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
        import jinja2

        self.errors = []
        scores, analyses = scores_of(self.exp, self.errors), read_analyses(self.exp, self.errors)
        grids = [_of_one_experiment(grid) for grid in latent_tables.grids([analyses])]
        content = {**(self._training_sections(scores) if self.trained else {}), **self._latents(analyses.notes)}
        content["more_pictures"] = self._more_pictures()
        sections = ["Model", "Scores", "Training", "Samples"] if self.trained else []
        sections += ["Latents", "Probes", *(["More pictures"] if content["more_pictures"] else [])]
        template, style, script = map(_packaged, PARTS)
        environment = jinja2.Environment(
            autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        text = environment.from_string(template).render(
            title=self.title,
            trained=self.trained,
            inputs="" if self.errors else self.inputs(),
            policy=_policy(style, script),
            style=style,
            script=script,
            errors=self.errors,
            sections=sections,
            latents=[grid for grid in grids if grid.name != latent_tables.PROBES],
            probes=[grid for grid in grids if grid.name == latent_tables.PROBES],
            **content,
        )
        return f"{text.strip()}\n"

    # --- What the sections show ---------------------------------------------------------------------------------------

    def _training_sections(self, scores: list[Score]) -> dict[str, Any]:
        """Model, scores, training and samples."""
        path, settings, facts = self.exp / "config.yaml", None, {}
        if path.exists():
            settings = path.read_text(encoding="utf-8", errors="replace")
            facts = dict(re.findall(r"^(model|coding|distribution): *(\S.*)$", settings, re.M))
            for score in scores[:1]:
                facts["distribution"] = score.output
                facts["parameters"] = f"{score.first.parameters:,}".replace(",", " ")
        curve, pictures = self._learning_curve()
        return {
            "settings": settings,
            "facts": facts,
            "scores": scores_grid(scores),
            "files": files_grid(files_of(self.exp, self.errors)),
            "curve": curve,
            "curve_pictures": pictures,
            "samples": self._samples(),
        }

    def _learning_curve(self) -> tuple[str, list[Picture]]:
        """The curve in words, "" if there is none, and its figure."""
        curves = learning_curves(self.exp.absolute().parents[1], self.errors, glob.escape(self.name))
        if not curves:
            return "", []
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
        return words, self._pictures([stem.with_name("learning_curve.png")])

    def _samples(self) -> list[Group]:
        folder, groups = self.exp / "samples", {}
        if (folder / "done.json").exists():
            try:
                for sample in read_samples(folder / "samples.json"):
                    picture = sample.picture or f"{sample.kind}.png"
                    groups.setdefault((sample.kind, picture), []).append(sample)
            except UserError as error:
                self.errors.append(str(error))
        shown = []
        for (kind, picture), samples in groups.items():
            level = {sample.level for sample in samples}
            heading = HEADINGS.get(kind, _words(kind)) + (f": {level.pop()}" if len(level) == 1 and any(level) else "")
            sounds = [sound for sound in map(self._sound, samples) if sound]
            pictures = [] if sounds else self._pictures([folder / picture])
            shown.append(Group(heading, pictures, samples[0].description or "", sounds))
        return shown

    def _sound(self, sample: Sample) -> Sound | None:
        path = self.exp / "samples" / f"{sample.name}.wav"
        if path.with_name(f"{sample.name}.npy").exists():
            return None
        try:
            return read_sound(sample, path)
        except UserError as error:
            self.errors.append(str(error))
            return None

    def _latents(self, notes: dict[str, list[str]]) -> dict[str, Any]:
        """Figures of analyses and probes."""
        folders = [self.exp / "analysis" / name for name in ANALYSES]
        return {
            "analyses": [
                Group(_words(path.name), self._pictures(sorted(path.glob("*.png"))), notes=notes.get(path.name, ()))
                for path in folders
                if (path / "done.json").exists()
            ],
            "probe_pictures": self._pictures(sorted((self.exp / "probes").glob("*.png"))),
        }

    def _more_pictures(self) -> list[Picture]:
        return self._pictures(
            path
            for path in sorted(self.exp.glob("*/*"))
            if path.suffix in PICTURES and not path.parent.name.startswith((*WITH_SECTIONS, *NOT_SHOWN))
        )

    def _pictures(self, paths: Iterable[Path]) -> list[Picture]:
        pictures = []
        for path in paths:
            if path.is_file():
                caption = f"{CAPTIONS.get(path.stem, _words(path.stem))} ({path.parent.name})"
                pictures.append(Picture(data_uri(path.read_bytes(), PICTURES[path.suffix]), caption))
            else:
                self.errors.append(f"{path}: missing; run the stage that writes it")
        return pictures


def _packaged(name: str) -> str:
    return resources.files("speechlvm.reporting").joinpath(name).read_text(encoding="utf-8")


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _of_one_experiment(grid: Grid) -> Grid:
    """Without the column that names the experiment in each row."""
    rows = [[row[0] if row[0] == "chance" else row[1], *row[2:]] for row in grid.rows]
    return replace(grid, columns=grid.columns[1:], rows=rows)


def _policy(style: str, script: str) -> str:
    """A Content-Security-Policy under which a page loads nothing and runs nothing but this style and this script."""
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") for text in (style, script)
    ]
    return (
        "default-src 'none'; img-src data:; media-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'"
    )
