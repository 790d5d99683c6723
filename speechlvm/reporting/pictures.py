"""Pictures of waveforms: the wave above its spectrogram, several to a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from speechlvm.files import atomic_write

DYNAMIC_RANGE_DB = 80.0
WINDOW_FRAMES = 256
HOP_FRAMES = 64


def new_figure(*arguments, **options):
    """A figure by the object interface, without pyplot: no global state, no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(*arguments, **options)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure, path: Path) -> None:
    """PNG or PDF by the path's ending, atomically."""
    with atomic_write(path, "wb") as stream:
        figure.savefig(stream, format=path.suffix[1:], dpi=120, bbox_inches="tight")


def waveform_page(path: Path, waves: Sequence[tuple[str, np.ndarray, Sequence[int]]], rate_hz: int, title: str) -> None:
    """One column per (name, int16 samples, marked frames): waveform, and spectrogram in dB below full scale."""
    from scipy.signal import spectrogram

    figure = new_figure(figsize=(4.2 * len(waves), 4.4), layout="constrained")
    axes = figure.subplots(2, len(waves), squeeze=False, sharex="col", height_ratios=(1, 2))
    for column, (name, samples, marks) in enumerate(waves):
        wave, picture = axes[0, column], axes[1, column]
        seconds = np.arange(len(samples)) / rate_hz
        wave.plot(seconds, samples / 32768.0, linewidth=0.4, color="0.2")
        wave.set_title(name, fontsize=8)
        peak = max(0.01, float(np.abs(samples.astype(np.float64)).max()) / 32768.0)
        wave.set_ylim(-1.1 * peak, 1.1 * peak)
        window = min(WINDOW_FRAMES, len(samples))
        frequency, time, power = spectrogram(
            samples / 32768.0, rate_hz, nperseg=window, noverlap=max(0, window - HOP_FRAMES), mode="magnitude"
        )
        level = 20 * np.log10(np.maximum(power, 1e-8))
        top = float(level.max())
        picture.pcolormesh(time, frequency / 1000, level, vmin=top - DYNAMIC_RANGE_DB, vmax=top, cmap="magma")
        picture.set_xlabel("time [s]")
        for mark in marks:
            for axis in (wave, picture):
                axis.axvline(mark / rate_hz, color="tab:cyan", linewidth=1)
    axes[0, 0].set_ylabel("amplitude")
    axes[1, 0].set_ylabel("frequency [kHz]")
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)
