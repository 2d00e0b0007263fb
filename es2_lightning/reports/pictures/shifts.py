"""How far an attack has to push the states at each layer: perturbation distance."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from es2_lightning.evaluation.comparison import Comparison
from es2_lightning.reports.attack_table import NOT_EFFECTIVE
from es2_lightning.reports.pictures.layers import mark_layers
from es2_lightning.reports.pictures.style import Look, looks

ATTACKS = ("scav", "scav_worst")
"""Whose shifts are drawn: the first of these that was measured."""
PANELS = {
    "shift": ("absolute", "mean norm of the shift"),
    "relative_shift": ("relative", "mean norm of the shift / of the states"),
}
FAR_APART = 10
"""Figures of which one is this many times another are drawn on a logarithmic axis."""


def draw(comparison: Comparison, layers: Sequence[int]) -> Figure | None:
    """Two panels over the layers, absolute and relative, with 95 % intervals.

    A layer that was not shifted has no point. `layers`, those that were separated, are marked.
    """
    attack = shifting_attack(comparison)
    if attack is None:
        return None
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, metric in zip(panels, PANELS, strict=True):
        draw_shifts(axes, looks(comparison), attack, metric, layers)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    note = "" if comparison.effective.get(attack, True) else f" ({NOT_EFFECTIVE})"
    figure.suptitle(f"{attack}{note}: shift at the prompt's last token", fontsize=11)
    return figure


def shifting_attack(comparison: Comparison) -> str | None:
    """The attack whose shifts are drawn; None where none was measured."""
    measured = {row.attack for row in comparison.rows if row.metric in PANELS and row.layer}
    return next((name for name in ATTACKS if name in measured), None)


def draw_shifts(
    axes: Axes, models: Sequence[Look], attack: str, metric: str, layers: Sequence[int]
) -> None:
    """The shift at each layer with its 95 % interval, as one of `PANELS`."""
    _panel(axes, models, attack, metric)
    title, unit = PANELS[metric]
    axes.set_title(title)
    axes.set_ylabel(unit)
    every = [s.layer for s in models[0].measured.separability]
    axes.set_xlim(min(every) - 0.4, max(every) + 0.4)
    mark_layers(axes, layers, every)


def _panel(axes: Axes, models: Sequence[Look], attack: str, metric: str) -> None:
    values = []
    for look in models:
        layers, points = [], []
        for row in look.comparison.rows:
            estimate = (row.base, row.tuned)[look.column]
            if (row.attack, row.metric) != (attack, metric) or row.layer is None or not estimate:
                continue
            if estimate.value > 0:
                layers.append(row.layer)
                points.append(estimate)
        values += [p.value for p in points]
        heights = [p.value for p in points]
        axes.plot(
            layers,
            heights,
            color=look.colour,
            marker=look.marker,
            linestyle=look.linestyle,
            markersize=4,
            label=look.label,
        )
        axes.errorbar(
            layers,
            heights,
            yerr=[[p.value - p.low for p in points], [p.high - p.value for p in points]],
            fmt="none",
            ecolor=look.colour,
            capsize=2,
        )
    if values and max(values) > FAR_APART * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
