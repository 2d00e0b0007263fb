"""Distance and probe accuracy by layer, base against tuned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from es2_lightning.evaluation.comparison import Comparison
from es2_lightning.reports.pictures.style import Look, looks


def draw(comparison: Comparison, layers: Sequence[int]) -> Figure | None:
    """Two panels over the layers; those that were separated are marked."""
    every = [s.layer for s in comparison.base.separability]
    if not every:
        return None
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_distance(left, looks(comparison), layers)
    draw_accuracy(right, looks(comparison), layers)
    # Below the panels, where it can cover nothing.
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def draw_distance(axes: Axes, models: Sequence[Look], layers: Sequence[int]) -> None:
    """How far harmful states are from harmless ones, relative to their norm."""
    for look in models:
        found = look.measured.separability
        distances = [s.distances.relative_between.value for s in found]
        axes.plot([s.layer for s in found], distances, **_line_of(look))
    axes.set_title("Distance of harmful and harmless states")
    axes.set_ylabel("mean distance / mean state norm")
    axes.set_ylim(bottom=0)
    mark_layers(axes, layers, _every(models))


def draw_accuracy(axes: Axes, models: Sequence[Look], layers: Sequence[int]) -> None:
    """How well a linear probe tells harmful states from harmless ones."""
    for look in models:
        numbers = [s.layer for s in look.measured.separability]
        accuracy = [s.probe_accuracy for s in look.measured.separability]
        axes.plot(numbers, [100 * a.value for a in accuracy], **_line_of(look))
        axes.fill_between(
            numbers,
            [100 * a.low for a in accuracy],
            [100 * a.high for a in accuracy],
            color=look.colour,
            alpha=0.15,
            linewidth=0,
        )
    axes.set_title("Accuracy of a linear probe")
    axes.set_ylabel("% of test prompts (95 % interval)")
    lowest = min(s.probe_accuracy.low for look in models for s in look.measured.separability)
    axes.set_ylim(max(0, min(20, 100 * lowest - 3)), 103)
    mark_layers(axes, layers, _every(models))


def _line_of(look: Look) -> dict[str, Any]:
    return {
        "color": look.colour,
        "marker": look.marker,
        "linestyle": look.linestyle,
        "markersize": 4,
        "label": look.label,
    }


def _every(models: Sequence[Look]) -> list[int]:
    return sorted({s.layer for look in models for s in look.measured.separability})


def mark_layers(axes: Axes, layers: Sequence[int], every: Sequence[int]) -> None:
    """Name the axis over the layers, and mark those that were separated."""
    axes.set_xlabel("layer")
    if len(every) <= 12:
        axes.set_xticks(list(every))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for i, layer in enumerate(layers):
        label = "separated" if i == 0 else None
        axes.axvline(layer, color="black", linestyle=":", linewidth=1, label=label)
