"""Harmful and harmless states before and after, on their two main directions."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from es2_lightning.evaluation.comparison import Comparison
from es2_lightning.evaluation.separability import Projection
from es2_lightning.reports.cells import shortened
from es2_lightning.reports.pictures.style import HARMFUL, HARMLESS

MOST_LAYERS = 6
"""Drawn where no layers were separated: as many as this, evenly spaced."""
LONGEST_NAME = 14
COLUMNS = 4
"""Layers beside each other; more go below."""


def draw(comparison: Comparison, layers: Sequence[int]) -> Figure | None:
    """A column for each separated layer, base above tuned.

    Each panel has principal components of its own.
    """
    chosen = drawn_layers(comparison, layers)
    if not chosen:
        return None
    models = len(comparison.measurements)
    bands = ceil(len(chosen) / COLUMNS)
    columns = ceil(len(chosen) / bands)
    figure = Figure(
        figsize=(max(4.8, 2.9 * columns), 0.5 + 2.8 * models * bands), layout="constrained"
    )
    panels = figure.subplots(models * bands, columns, squeeze=False)
    for axes in panels.flat:
        axes.set_visible(False)
    for model, measured in enumerate(comparison.measurements):
        by_layer = {projection.layer: projection for projection in measured.projections}
        for place, layer in enumerate(chosen):
            axes = panels[models * (place // columns) + model][place % columns]
            if layer not in by_layer:
                continue
            projection = by_layer[layer]
            axes.set_visible(True)
            draw_projection(axes, projection)
            axes.set_title(f"{shortened(measured.model, LONGEST_NAME)}, layer {projection.layer}")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def draw_projection(axes: Axes, projection: Projection) -> None:
    """Harmful and harmless states of one model at one layer."""
    for points, colour, marker, label in (
        (projection.harmless, HARMLESS, "o", "harmless"),
        (projection.harmful, HARMFUL, "^", "harmful"),
    ):
        axes.scatter(
            [x for x, _ in points],
            [y for _, y in points],
            s=14,
            alpha=0.65,
            color=colour,
            marker=marker,
            linewidths=0,
            label=label,
        )
    x, y = projection.explained
    axes.set_xlabel(f"component 1 ({100 * x:.0f} % of variance)", fontsize=9)
    axes.set_ylabel(f"component 2 ({100 * y:.0f} %)", fontsize=9)
    axes.locator_params(nbins=5)


def drawn_layers(comparison: Comparison, layers: Sequence[int]) -> list[int]:
    """Those of `layers` of which there are projections; where there are none, some of all."""
    there = [projection.layer for projection in comparison.base.projections]
    separated = [layer for layer in there if layer in layers]
    if separated or len(there) <= MOST_LAYERS:
        return separated or there
    step = (len(there) - 1) / (MOST_LAYERS - 1)
    return [there[round(i * step)] for i in range(MOST_LAYERS)]
