"""Harmful answers recovered against the largest shift allowed: the headline."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from es2_lightning.evaluation.comparison import Comparison
from es2_lightning.reports.pictures.style import BASE, TUNED


def draw(comparison: Comparison) -> Figure:
    """Both curves with their 95 % intervals, and the budget at which the base yields 95 %."""
    figure = Figure(figsize=(6.8, 4.4), layout="constrained")
    axes = figure.subplots()
    largest = 1.0
    for measured, colour, marker in (
        (comparison.base, BASE, "o"),
        (comparison.tuned, TUNED, "s"),
    ):
        if measured.scav is None:
            continue
        curve = measured.scav.curve
        points = curve.recovered
        largest = max(largest, curve.budgets[-1])
        axes.plot(
            curve.budgets,
            [100 * p.value for p in points],
            color=colour,
            marker=marker,
            markersize=4,
            label=measured.model,
        )
        axes.fill_between(
            curve.budgets,
            [100 * p.low for p in points],
            [100 * p.high for p in points],
            color=colour,
            alpha=0.15,
        )
    if math.isfinite(comparison.base_budget):
        axes.axvline(
            comparison.base_budget,
            color="black",
            linestyle=":",
            linewidth=1,
            label=f"base yields 95 % ({comparison.base_budget:.2f})",
        )
    # Small budgets decide, so the axis is stretched there; it begins at 0, the direct prompt.
    axes.set_xscale("symlog", linthresh=0.1, linscale=0.6)
    ticks = [t for t in (0, 0.05, 0.1, 0.2, 0.5, 1, 2, 4) if t <= largest]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(0, largest)
    axes.set_ylim(-2, 102)
    axes.set_xlabel("largest shift allowed / the layer's mean state norm")
    axes.set_ylabel("harmful answers recovered, %")
    axes.set_title("SCAV, any configuration of the grid")
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure
