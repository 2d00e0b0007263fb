"""Harmful and harmless states before and after, on their two main directions."""

from __future__ import annotations

from matplotlib.figure import Figure

from es2_lightning.evaluation.comparison import Comparison
from es2_lightning.reports.pictures.style import HARMFUL, HARMLESS


def draw(comparison: Comparison) -> Figure:
    """A column for each layer, base above tuned. Each panel has principal components of its own."""
    base, tuned = comparison.base.projections, comparison.tuned.projections
    columns = max(1, len(base))
    figure = Figure(figsize=(max(6.4, 3.4 * columns), 6.4), layout="constrained")
    panels = figure.subplots(2, columns, squeeze=False)
    for row, (measured, projections) in enumerate(
        ((comparison.base, base), (comparison.tuned, tuned))
    ):
        for axes, projection in zip(panels[row], projections, strict=False):
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
            axes.set_title(f"{measured.model}, layer {projection.layer}")
            x, y = projection.explained
            axes.set_xlabel(f"component 1 ({100 * x:.0f} % of variance)")
            axes.set_ylabel(f"component 2 ({100 * y:.0f} %)")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure
