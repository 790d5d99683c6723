"""Figures of waveforms: the waveform above its spectrogram, several per page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from speechlvm.utils.files import write_bytes

PNG_DPI = 120
MARGIN_INCHES = 0.1
DYNAMIC_RANGE_DB = 80.0
WINDOW_FRAMES = 256
HOP_FRAMES = 64
COLUMNS = 4
PANEL_INCHES = 4.2
PANEL_PARTS = ((0.0, 2.2), (2.35, 1.05))  # inches above the bottom, and tall: spectrogram, waveform


def new_figure(*arguments, **options):
    """A figure by the object interface, without pyplot: no global state, no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(*arguments, **options)
    FigureCanvasAgg(figure)
    return figure


def panel_grid(count: int, columns: int, panel: tuple[float, float], margin: tuple[float, float] = (0.0, 0.0)):
    """A figure with panels in rows.

    Args:
        count: number of panels.
        columns: panels in a row, if there are so many.
        panel: width and height of one, in inches.
        margin: width and height to add, in inches.

    Returns:
        The figure, and its panels row by row.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    size = panel[0] * columns + margin[0], panel[1] * rows + margin[1]
    figure = new_figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]


def save_figure(figure, *paths: Path) -> None:
    """PNG or PDF by a path's ending, cropped and atomic; the same figure gives the same bytes.

    The layout is computed once for all paths, since that takes about as long as drawing.
    """
    figure.set_dpi(PNG_DPI)
    figure.draw_without_rendering()
    area = figure.get_tightbbox().padded(MARGIN_INCHES)
    figure.set_layout_engine(None)
    for path in paths:
        kind = path.suffix[1:]
        undated = {"CreationDate": None} if kind == "pdf" else None
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=PNG_DPI, bbox_inches=area, metadata=undated)
        write_bytes(path, buffer.getbuffer())


def spectrogram_db(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frequencies in Hz (F,), times in seconds (N,) and levels in dB (F, N) of int16 samples, steps of 64 frames."""
    from scipy.signal import spectrogram

    window = min(WINDOW_FRAMES, len(samples))
    frequency, time, magnitude = spectrogram(
        samples / 32768.0, rate_hz, nperseg=window, noverlap=max(0, window - HOP_FRAMES), mode="magnitude"
    )
    return frequency, time, 20 * np.log10(np.maximum(magnitude, 1e-8))


def waveform_page(
    path: Path,
    waves: Sequence[tuple[str, np.ndarray, Sequence[int]]],
    rate_hz: int,
    title: str,
    columns: int = COLUMNS,
) -> None:
    """For each (name, int16 samples, marked frames) the waveform above its spectrogram in dB, row by row."""
    columns = min(columns, len(waves))
    bands = -(-len(waves) // columns)
    width, height = PANEL_INCHES * columns, PANEL_INCHES * bands + 0.4
    figure = new_figure(figsize=(width, height))
    for index, (name, samples, marks) in enumerate(waves):
        band, column = divmod(index, columns)
        # placed by hand: a layout that measures all labels takes longer than drawing
        left, bottom = PANEL_INCHES * column + 0.55, PANEL_INCHES * (bands - band - 1) + 0.5
        places = [(left / width, (bottom + up) / height, 3.55 / width, tall / height) for up, tall in PANEL_PARTS]
        picture, wave = (figure.add_axes(place) for place in places)
        if column == 0:
            wave.set_ylabel("amplitude")
            picture.set_ylabel("frequency [kHz]")
        seconds = len(samples) / rate_hz
        wave.plot(np.arange(len(samples)) / rate_hz, samples / 32768.0, linewidth=0.4, color="0.2")
        wave.set_title(name, fontsize=8)
        peak = max(0.01, float(np.abs(samples.astype(np.float64)).max()) / 32768.0)
        wave.set(xlim=(0, seconds), ylim=(-1.1 * peak, 1.1 * peak), xticks=[])
        frequency, time, level = spectrogram_db(samples, rate_hz)
        top, step = float(level.max()), HOP_FRAMES / rate_hz / 2
        extent = (time[0] - step, time[-1] + step, 0, frequency[-1] / 1000)
        limits = {"vmin": top - DYNAMIC_RANGE_DB, "vmax": top, "cmap": "magma"}
        picture.imshow(level, origin="lower", aspect="auto", extent=extent, interpolation="nearest", **limits)
        picture.set(xlim=(0, seconds), xlabel="time [s]")
        for mark in marks:
            for axis in (wave, picture):
                axis.axvline(mark / rate_hz, color="tab:cyan", linewidth=1)
    figure.suptitle(title, fontsize=10, y=1 - 0.15 / height)
    save_figure(figure, path)


def channels_page(
    path: Path,
    sequences: Sequence[tuple[str, np.ndarray, Sequence[int]]],
    channels: Sequence[str],
    rate_hz: float | None,
    title: str,
    columns: int = COLUMNS,
) -> None:
    """For each (name, (T, C) values, marked frames) its channels over time, each on a line of its own.

    Each channel is drawn in units of its standard deviation over the page, so that slow and small ones are seen too.

    Args:
        path: PNG or PDF.
        sequences: row by row.
        channels: C names.
        rate_hz: frames per second; None: the axis counts frames.
        title: of the page.
        columns: sequences in a row.
    """
    figure, axes = panel_grid(len(sequences), columns, (4.2, 1.0 + 0.25 * len(channels)), (0.0, 0.5))
    everything = np.concatenate([values for _, values, _ in sequences])
    center, std = everything.mean(0), everything.std(0) + 1e-12
    places = 6.0 * np.arange(len(channels))[::-1]
    for axis, (name, values, marks) in zip(axes, sequences, strict=True):
        time = np.arange(len(values)) / (rate_hz or 1.0)
        axis.plot(time, np.clip((values - center) / std, -3, 3) + places, linewidth=0.6, color="0.2")
        axis.set_yticks(places, channels if axis.get_subplotspec().is_first_col() else [], fontsize=6)
        axis.set_ylim(-4, places[0] + 4)
        axis.set_title(name, fontsize=8)
        axis.set_xlabel("time [s]" if rate_hz else "frame")
        for mark in marks:
            axis.axvline(mark / (rate_hz or 1.0), color="tab:cyan", linewidth=1)
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)
