"""Sounds embedded in a page: a player and a small spectrogram each."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from speechlvm.reporting.html import Markup, data_uri, element
from speechlvm.reporting.pictures import DYNAMIC_RANGE_DB, spectrogram_db
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import read_json

WIDTH, HEIGHT = 320, 128  # pixels of a spectrogram
STEP_DB = 2.0  # finer steps are not seen, and take more bytes
MARK_COLOUR = (0, 184, 217)


class Sample(BaseModel):
    """An entry of samples.json, as stage 5 writes it.

    Attributes:
        name: of its file, without ending.
        kind: what it is one of.
        description: of all of its kind.
        picture: file that shows all of its kind.
        level: of latents that it is about.
        temperature: that it was drawn at.
        weight: of the second of two utterances.
        utterances: that it was made from.
        beside: the sample to compare it with.
        log_likelihood_nats: of what was drawn.
        marks: frames at which something changes.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    name: str = Field(pattern="^[^/]+$")
    kind: str
    description: str | None = None
    picture: str | None = Field(default=None, pattern="^[^/]+$")
    level: str | None = None
    temperature: float | None = None
    weight: float | None = None
    utterances: list[str] = []
    beside: str | None = None
    log_likelihood_nats: float | None = None
    marks: list[int] = []

    @property
    def about(self) -> str:
        """What distinguishes it from others of its kind, in words."""
        words = {
            "level {}": self.level,
            "temperature {:g}": self.temperature,
            "weight {:g}": self.weight,
            "of {}": ", ".join(self.utterances) or None,
            "to compare with {}": self.beside,
            "log-likelihood {:.0f} nats": self.log_likelihood_nats,
        }
        return "; ".join(text.format(value) for text, value in words.items() if value is not None)


def read_samples(path: Path) -> list[Sample]:
    """Contents of samples.json.

    Raises:
        UserError: damaged.
    """
    again = f"remove {path.parent} and run stage 5 again"
    try:
        return TypeAdapter(list[Sample]).validate_python(read_json(path))
    except UserError as error:
        raise UserError(f"{str(error).split(';')[0]}; {again}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "contents"
        raise UserError(f"{path}: {where}: {first['msg'].lower()}; {again}") from error


def player(sample: Sample, samples: np.ndarray, rate_hz: int) -> Markup:
    """A sound with its name, its player, its spectrogram and what is said about it.

    Args:
        sample: whose sound it is.
        samples: (T,) int16.
        rate_hz: frames per second.
    """
    name = sample.name
    seconds, band = f"{len(samples) / rate_hz:.2f} s", f"0 - {rate_hz / 2000:g} kHz"
    options = {"controls": True, "preload": "metadata", "aria_label": name}
    image = {"alt": f"Spectrogram of {name}, {band}, {seconds}", "width": WIDTH, "height": HEIGHT}
    line = [element("button", type="button", hidden=True), element("span", name, class_="name")]
    picture = element("img", src=data_uri(spectrogram_png(samples, rate_hz, sample.marks), "image/png"), **image)
    axis = [element("span", "0 s"), element("span", band), element("time", seconds)]
    return element(
        "figure",
        element("div", line, class_="line"),
        element("audio", src=data_uri(flac(samples, rate_hz), "audio/flac"), **options),
        element("div", picture, element("i"), class_="view"),
        element("div", axis, class_="axis", aria_hidden="true"),
        element("figcaption", sample.about) if sample.about else None,
        class_="sound",
    )


def flac(samples: np.ndarray, rate_hz: int) -> bytes:
    """int16 samples without loss, as every browser plays them."""
    import soundfile

    stream = io.BytesIO()
    soundfile.write(stream, samples, rate_hz, format="FLAC", subtype="PCM_16")
    return stream.getvalue()


def spectrogram_png(samples: np.ndarray, rate_hz: int, marks: list[int]) -> bytes:
    """A spectrogram of 320 by 128 pixels, 80 dB from dark to light, lines at the marked frames."""
    from matplotlib import colormaps
    from PIL import Image  # what matplotlib writes its PNG with; a palette takes a third of the bytes

    level = spectrogram_db(samples, rate_hz)[2]
    steps = int(DYNAMIC_RANGE_DB / STEP_DB)
    image = Image.fromarray((level[::-1] - level.max()).astype(np.float32)).resize(
        (WIDTH, HEIGHT), Image.Resampling.BOX
    )
    indices = np.clip(np.rint(np.asarray(image) / STEP_DB) + steps, 0, steps).astype(np.uint8)
    colours = np.rint(255 * colormaps["magma"](np.arange(steps + 1) / steps)[:, :3]).astype(np.uint8)
    for mark in marks:
        indices[:, min(WIDTH - 1, int(WIDTH * mark / max(1, len(samples))))] = steps + 1
    picture = Image.fromarray(indices, mode="P")
    picture.putpalette([*colours.flatten().tolist(), *MARK_COLOUR])
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    return stream.getvalue()
