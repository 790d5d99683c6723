"""Phone durations: box plots for one speaker and for all (source A, figure 11)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from speechlvm.data.kaldi.directory import DataDirectory
from speechlvm.data.kaldi.recordings import Recordings
from speechlvm.reporting.figures import save
from speechlvm.reporting.pictures import panel_grid

WHISKER = 1.5  # interquartile ranges that whiskers reach at most, as box plots are usually drawn


def durations_ms(
    directories: Iterable[DataDirectory], speaker: str | None = None, allow_pipes: bool = False
) -> dict[str, np.ndarray]:
    """Durations of all segments of each label in milliseconds, sorted, by label.

    Args:
        directories: with `phones`; the sampling rate of each is that of its first recording.
        speaker: name; None: all speakers.
        allow_pipes: run the command that a recording may be.
    """
    found: dict[str, list[float]] = {}
    for data in directories:
        rate_hz = Recordings(data, Path(), allow_pipes).rate_hz()
        for utterance, segments in data.phones.items():
            if speaker in (None, data.utt2spk[utterance]):
                for start, end, label in segments:
                    found.setdefault(label, []).append(1000.0 * (end - start) / rate_hz)
    return {label: np.sort(values) for label, values in sorted(found.items())}


def summary(durations: Mapping[str, np.ndarray], speaker: str) -> list[dict[str, Any]]:
    """A record for each label: count, and least, quartiles and greatest in milliseconds; shortest median first."""
    names = ("minimum_ms", "lower_quartile_ms", "median_ms", "upper_quartile_ms", "maximum_ms")
    return [
        {
            "speaker": speaker,
            "phone": label,
            "count": len(durations[label]),
            **dict(zip(names, np.percentile(durations[label], (0, 25, 50, 75, 100)).tolist(), strict=True)),
        }
        for label in by_median(durations)
    ]


def by_median(durations: Mapping[str, np.ndarray]) -> list[str]:
    """Labels, shortest median first."""
    return sorted(durations, key=lambda label: (float(np.median(durations[label])), label))


def durations_figure(stem: Path, panels: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Box plots of durations, one panel below the other, all in the order of the last panel's medians.

    Boxes are quartiles, whiskers reach 1.5 interquartile ranges at most; what is beyond is not drawn, since pauses last
    for seconds. Labels that a panel lacks are left out of it.

    Args:
        stem: path without ending.
        panels: durations in milliseconds by label, by title.
    """
    from matplotlib.cbook import boxplot_stats

    order = by_median(list(panels.values())[-1])
    figure, axes = panel_grid(len(panels), 1, (1.5 + 0.17 * len(order), 3.2))
    for axis, (title, durations) in zip(axes, panels.items(), strict=True):
        labels = [label for label in order if label in durations]
        boxes = boxplot_stats([durations[label] for label in labels], whis=WHISKER, labels=labels)
        axis.bxp(boxes, showfliers=False, widths=0.6, medianprops={"color": "tab:red"})
        axis.tick_params(axis="x", rotation=90, labelsize=8)
        axis.set_ylim(bottom=0)
        axis.set_ylabel("duration [ms]")
        axis.set_title(title, fontsize=10)
        axis.grid(axis="y", alpha=0.3)
    save(figure, stem)
