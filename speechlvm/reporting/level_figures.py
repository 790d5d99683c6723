"""The figure of levels: KL, variance and autocorrelation of latents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from speechlvm.latents.levels import ACTIVE_NATS, ACTIVE_VARIANCE
from speechlvm.reporting.figures import save
from speechlvm.reporting.pictures import panel_grid

LEAST_DRAWN = 1e-6  # of KL and variances, on logarithmic axes


def draw(out: Path, result: Mapping[str, Any], spectra: Mapping[str, Any] | None = None) -> None:
    """<out>/levels.png and .pdf: KL of each level, KL and variance of its units in descending order, autocorrelation.

    Args:
        out: directory.
        result: of `analyse`, with its source and set; without KL there are no panels of it, without latents none of
            variances.
        spectra: result for the spectra; their autocorrelation is drawn too.
    """
    levels = result["representations"]
    informed = {name: level for name, level in levels.items() if level["unit_kl_nats_per_step"] is not None}
    latent = {name: level for name, level in levels.items() if level["kind"] == "latent"}
    compared = {**levels, **(spectra["representations"] if spectra else {})}
    panels = [(_draw_kl, informed), (_draw_unit_kl, informed), (_draw_variances, latent), (_draw_correlation, compared)]
    panels = [(draw_panel, shown) for draw_panel, shown in panels if shown]
    figure, axes = panel_grid(len(panels), 2 if len(panels) == 4 else len(panels), (4.8, 3.3), (0.6, 0.4))
    colours = {name: f"C{place}" for place, name in enumerate(compared)}
    for (draw_panel, shown), axis in zip(panels, axes, strict=True):
        draw_panel(axis, shown, colours)
    figure.suptitle(f"{result['source']}: levels on {', '.join(result['set'])}", fontsize=10)
    save(figure, out / "levels")


def _label(name: str, level: Mapping[str, Any]) -> str:
    return f"{name} (collapsed)" if level["collapsed"] else name


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _draw_kl(axis, levels: Mapping[str, Any], colours: Mapping[str, str]) -> None:
    timed = all(level["rate_hz"] for level in levels.values())
    values = [level["kl_nats_per_second" if timed else "kl_nats_per_step"] for level in levels.values()]
    places = range(len(levels))
    axis.barh(places, values, color=[colours[name] for name in levels], height=0.6)
    widest = max(*values, 1e-9)
    for place, value, level in zip(places, values, levels.values(), strict=True):
        text = f"{_short(value)} nats/{'s' if timed else 'step'}"
        if timed:
            text += f" = {_short(level['kl_bits_per_second'])} bits/s"
        text += f"\n{level['active_units_by_kl']} of {level['dimensions']} units active"
        text += f" ({level['active_units']} by variance)" if level["active_units"] is not None else ""
        inside = value > 0.6 * widest
        axis.text(
            value + (-0.02 if inside else 0.02) * widest, place, text, va="center", ha="right" if inside else "left",
            fontsize=8, color="white" if inside else "tab:red" if level["collapsed"] else "black",
        )  # fmt: skip
    axis.set_yticks(places, [_label(name, level) for name, level in levels.items()])
    axis.set_ylim(-0.6, max(len(levels), 2) - 0.4)
    axis.set_xlim(0, 1.05 * widest)
    axis.set_xlabel(f"KL [nats per {'second' if timed else 'step'}]")
    axis.spines[["top", "right"]].set_visible(False)


def _draw_sorted(axis, levels: Mapping[str, Any], colours: Mapping[str, str], key: str, threshold: float) -> None:
    for name, level in levels.items():
        values = np.maximum(np.sort(level[key])[::-1], LEAST_DRAWN)
        ranks = np.arange(1, len(values) + 1)
        axis.plot(ranks, values, marker=".", markersize=4, color=colours[name], label=_label(name, level))
    axis.axhline(threshold, color="0.3", linewidth=1, linestyle="--", label="active above")
    axis.set_yscale("log")
    axis.set_ylim(bottom=LEAST_DRAWN / 2)
    axis.set_xlabel("units, in descending order")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)


def _draw_unit_kl(axis, levels: Mapping[str, Any], colours: Mapping[str, str]) -> None:
    _draw_sorted(axis, levels, colours, "unit_kl_nats_per_step", ACTIVE_NATS)
    axis.set_ylabel("KL of the unit [nats per step]")


def _draw_variances(axis, levels: Mapping[str, Any], colours: Mapping[str, str]) -> None:
    _draw_sorted(axis, levels, colours, "unit_variances", ACTIVE_VARIANCE)
    axis.set_ylabel("variance of the posterior mean")


def _draw_correlation(axis, levels: Mapping[str, Any], colours: Mapping[str, str]) -> None:
    timed = all(level["rate_hz"] for level in levels.values())
    unit = "ms" if timed else "steps"
    for name, level in levels.items():
        lags = np.arange(len(level["autocorrelation"])) * (1000 / level["rate_hz"] if timed else 1)
        length = level[f"autocorrelation_{unit}"]
        reached = "not reached" if length is None else f"{length:.3g} {unit}"
        style = "--" if level["kind"] == "spectrum" else ":" if level["collapsed"] else "-"
        label = f"{_label(name, level)}: {reached if len(lags) else 'constant'}"
        axis.plot(lags[1:], level["autocorrelation"][1:], style, color=colours[name], label=label)
    axis.axhline(math.exp(-1), color="0.3", linewidth=1, linestyle="--")
    axis.axhline(0, color="0.7", linewidth=0.8)
    axis.set_xscale("log")
    axis.set_xlabel(f"lag [{unit}]")
    axis.set_ylabel("autocorrelation")
    axis.legend(
        fontsize=8,
        title="below 1/e at",
        title_fontsize=8,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.01),
        borderaxespad=0,
    )
    axis.grid(alpha=0.3)
