"""Distance and probe accuracy by layer, base against tuned."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from es2_lightning.evaluation.comparison import Comparison
from es2_lightning.reports.pictures.style import BASE, TUNED


def draw(comparison: Comparison, layers: Sequence[int]) -> Figure:
    """Two panels over the layers; those that were separated are marked."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for measured, colour, marker in (
        (comparison.base, BASE, "o"),
        (comparison.tuned, TUNED, "s"),
    ):
        numbers = [s.layer for s in measured.separability]
        style = {"color": colour, "marker": marker, "markersize": 4, "label": measured.model}
        left.plot(numbers, [s.relative_between for s in measured.separability], **style)
        accuracy = [s.probe_accuracy for s in measured.separability]
        right.plot(numbers, [a.value for a in accuracy], **style)
        right.fill_between(
            numbers, [a.low for a in accuracy], [a.high for a in accuracy], color=colour, alpha=0.15
        )
    left.set_title("Distance of harmful and harmless states")
    left.set_ylabel("mean distance / mean state norm")
    left.set_ylim(bottom=0)
    right.set_title("Accuracy of a linear probe")
    right.set_ylabel("share of test prompts (95 % interval)")
    right.set_ylim(0.2, 1.03)
    for axes in (left, right):
        _mark(axes, layers, [s.layer for s in comparison.base.separability])
    # Below the panels, where it can cover nothing.
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _mark(axes: Axes, layers: Sequence[int], every: Sequence[int]) -> None:
    axes.set_xlabel("layer")
    if len(every) <= 12:
        axes.set_xticks(list(every))
    for i, layer in enumerate(layers):
        axes.axvline(
            layer, color="black", linestyle=":", linewidth=1, label="separated" if i == 0 else None
        )
