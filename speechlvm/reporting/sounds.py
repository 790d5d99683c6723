"""Sounds as parts of a page: a player and a small spectrogram each, in the page itself."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from speechlvm.reporting.html import Markup, data_uri, element
from speechlvm.reporting.pictures import DYNAMIC_RANGE_DB, spectrogram_db

WIDTH, HEIGHT = 320, 128  # pixels of a spectrogram
STEP_DB = 2.0  # finer steps are not seen, and take more bytes
ABOUT = {
    "level": "level",
    "temperature": "temperature",
    "weight": "weight",
    "utterances": "of",
    "beside": "to compare with",
}
MARK_COLOUR = (0, 184, 217)


def sound(name: str, samples: np.ndarray, rate_hz: int, marks: list[int], about: str) -> Markup:
    """A sound with its name, its player, its spectrogram and what is said about it.

    Args:
        name: above it.
        samples: (T,) int16.
        rate_hz: frames per second.
        marks: frames at which something changes, drawn as lines.
        about: below it, if anything.
    """
    seconds, band = f"{len(samples) / rate_hz:.2f} s", f"0 - {rate_hz / 2000:g} kHz"
    player = {"controls": True, "preload": "metadata", "aria_label": name}
    image = {"alt": f"Spectrogram of {name}, {band}, {seconds}", "width": WIDTH, "height": HEIGHT}
    line = [
        element("button", type="button", hidden=True),
        element("span", name, class_="name"),
        element("time", seconds),
    ]
    picture = element("img", src=data_uri(spectrogram_png(samples, rate_hz, marks), "image/png"), **image)
    axis = [element("span", text) for text in ("0 s", band, seconds)]
    return element(
        "figure",
        element("div", line, class_="line"),
        element("audio", src=data_uri(flac(samples, rate_hz), "audio/flac"), **player),
        element("div", picture, element("i"), class_="view"),
        element("div", axis, class_="axis", aria_hidden="true"),
        element("figcaption", about) if about else None,
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


def about(entry: Mapping[str, Any]) -> str:
    """What samples.json says about one sound, not about all of its kind, in words."""
    words = []
    for key, text in ABOUT.items():
        value = entry.get(key)
        if value is not None:
            words.append(f"{text} {', '.join(map(str, value)) if isinstance(value, list) else value}")
    if entry.get("log_likelihood_nats") is not None:
        words.append(f"log-likelihood {entry['log_likelihood_nats']:.0f} nats")
    return "; ".join(words)
