"""Harmful answers recovered against what the attacker may spend: the headline."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from es2_lightning.evaluation.attack_rows import curve_of
from es2_lightning.evaluation.comparison import Comparison
from es2_lightning.reports.attack_table import NOT_EFFECTIVE
from es2_lightning.reports.cells import figure as number
from es2_lightning.reports.pictures.style import Look, looks

AXES = {
    "relative_shift": "largest shift allowed / the layer's mean state norm",
    "steps": "optimisation steps allowed",
    "norm": "farthest move of an embedding / mean embedding norm",
}
"""What each axis of budgets measures; others go by their names."""
CLOSEST_TICKS = 0.07
"""Of the axis's length."""


def draw(comparison: Comparison, attack: str, axis: str) -> Figure | None:
    """Both curves with their 95 % intervals, and the budget at which the base yields 95 %."""
    if not any(curve_of(m, attack, axis) for m in comparison.measurements):
        return None
    figure = Figure(figsize=(6.8, 4.4), layout="constrained")
    axes = figure.subplots()
    draw_curves(axes, looks(comparison), attack, axis)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=3 if len("".join(labels)) < 60 else 1
    )
    return figure


def draw_curves(axes: Axes, models: Sequence[Look], attack: str, axis: str) -> None:
    """The curves of models, and the budget at which the first comparison's base yields 95 %."""
    budgets: set[float] = set()
    for look in models:
        curve = curve_of(look.measured, attack, axis)
        if curve is None:
            continue
        points = curve.recovered
        budgets |= set(curve.budgets)
        axes.plot(
            curve.budgets,
            [100 * p.value for p in points],
            color=look.colour,
            marker=look.marker,
            linestyle=look.linestyle,
            markersize=4,
            label=look.label,
            clip_on=False,
        )
        axes.fill_between(
            curve.budgets,
            [100 * p.low for p in points],
            [100 * p.high for p in points],
            color=look.colour,
            alpha=0.15,
            linewidth=0,
        )
    first = models[0]
    at = first.comparison.base_budgets.get((attack, axis), math.inf)
    if math.isfinite(at):
        label = f"{first.label} yields 95 % ({number(at, 'number')})"
        axes.axvline(at, color="black", linestyle=":", linewidth=1, label=label)
    _scale(axes, sorted(budgets))
    axes.set_ylim(0, 100)
    axes.set_xlabel(AXES.get(axis, f"{axis.replace('_', ' ')} allowed"))
    axes.set_ylabel("harmful answers recovered, %")
    works = first.comparison.effective.get(attack, True)
    axes.set_title(attack if works else f"{attack} ({NOT_EFFECTIVE})")


def _scale(axes: Axes, budgets: Sequence[float]) -> None:
    """Stretch the axis where budgets are small: those decide. It begins at 0, the direct prompt."""
    smallest, largest = budgets[1] if len(budgets) > 1 else 1.0, budgets[-1]
    if largest > 10 * smallest:
        axes.set_xscale("symlog", linthresh=2 * smallest, linscale=0.6)
    axes.set_xlim(0, max(largest, smallest))
    scale = axes.xaxis.get_transform()
    places = scale.transform(list(budgets))
    length = places[-1] - places[0] or 1.0
    ticks: list[int] = []
    # From the right, since the largest budget must be named and 0 speaks for itself.
    for i in reversed(range(len(budgets))):
        if not ticks or (places[ticks[-1]] - places[i]) / length >= CLOSEST_TICKS:
            ticks.append(i)
    axes.set_xticks([budgets[i] for i in ticks], [f"{budgets[i]:g}" for i in ticks])
    axes.set_xticks([], minor=True)
