"""Samples of stage 5 for the page of an experiment: a sound, a small spectrogram and a description each."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import Field

from speechlvm.data.audio import audio_info, read_audio
from speechlvm.reporting.pictures import DYNAMIC_RANGE_DB, spectrogram_db
from speechlvm.utils.records import Record, read_record

WIDTH, HEIGHT = 320, 128  # pixels of a spectrogram
STEP_DB = 2.0  # finer steps are not seen, and take more bytes
MARK_COLOUR = (0, 184, 217)


class Sample(Record):
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
        reference: the sample to compare it with.
        log_likelihood_nats: of what was drawn.
        marks: frames at which something changes.
    """

    name: str = Field(pattern="^[^/]+$")
    kind: str
    description: str | None = None
    picture: str | None = Field(default=None, pattern="^[^/]+$")
    level: str | None = None
    temperature: float | None = None
    weight: float | None = None
    utterances: list[str] = []
    reference: str | None = None
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
            "to compare with {}": self.reference,
            "log-likelihood {:.0f} nats": self.log_likelihood_nats,
        }
        return "; ".join(text.format(value) for text, value in words.items() if value is not None)


def read_samples(path: Path) -> list[Sample]:
    """Contents of samples.json.

    Raises:
        UserError: damaged.
    """
    return read_record(path, list[Sample], f"remove {path.parent} and run stage 5 again")


class Sound(NamedTuple):
    """A sample as the page embeds it; FLAC and PNG are data URIs, numbers have their units."""

    name: str
    about: str
    audio: str
    spectrogram: str
    length: str
    band: str
    width: int = WIDTH
    height: int = HEIGHT


def read_sound(sample: Sample, path: Path) -> Sound:
    """The sound of a sample.

    Raises:
        UserError: its file is missing or damaged.
    """
    rate_hz = audio_info(path).rate_hz
    samples = read_audio(path, rate_hz)
    return Sound(
        sample.name,
        sample.about,
        data_uri(flac(samples, rate_hz), "audio/flac"),
        data_uri(spectrogram_png(samples, rate_hz, sample.marks), "image/png"),
        f"{len(samples) / rate_hz:.2f} s",
        f"0 - {rate_hz / 2000:g} kHz",
    )


def data_uri(content: bytes, media_type: str) -> str:
    """Bytes as an address that needs no network."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


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
