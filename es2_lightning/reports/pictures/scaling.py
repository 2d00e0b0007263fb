"""Memory and time of a step on each cluster, and tokens per second on processes."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from es2_lightning.reports.pictures.style import BASE, HARMFUL, HARMLESS, THRESHOLD, TUNED
from es2_lightning.training.scaling.results import ScalingResult

MEMORY = (
    ("weights", BASE),
    ("trained", HARMLESS),
    ("unsharded", HARMFUL),
    ("activations", TUNED),
    ("transient", THRESHOLD),
)


def draw(result: ScalingResult) -> Figure:
    """Predictions beside each other; what was measured below them."""
    rows = len(result.predicted)
    heights = [0.3 * rows + 1.2, 2.2] if result.measured else [0.3 * rows + 1.2]
    figure = Figure(figsize=(10, sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    memory = figure.add_subplot(grid[0, 0])
    time = figure.add_subplot(grid[0, 1], sharey=memory)
    _memory(memory, result)
    _time(time, result)
    memory.set_yticks(
        range(rows), [f"{p.model}, {p.cluster.name}, {p.strategy}" for p in result.predicted]
    )
    memory.tick_params(axis="y", labelsize=8)
    time.tick_params(axis="y", labelleft=False)
    memory.invert_yaxis()
    if result.measured:
        _measured(figure.add_subplot(grid[1, :]), result)
    return figure


def _memory(axes: Axes, result: ScalingResult) -> None:
    for y, p in enumerate(result.predicted):
        left = 0.0
        for part, colour in MEMORY:
            width = getattr(p.memory, part) / 1e9
            axes.barh(y, width, left=left, color=colour, label=part if y == 0 else None)
            left += width
        axes.vlines(p.cluster.memory_gb, y - 0.45, y + 0.45, color="black", linewidth=1.5)
    axes.plot([], [], color="black", linewidth=1.5, label="there is")
    axes.set_xlabel("GB of a device")
    axes.grid(axis="y", visible=False)
    axes.legend(fontsize=8, loc="upper right")


def _time(axes: Axes, result: ScalingResult) -> None:
    for y, p in enumerate(result.predicted):
        label = y == 0
        axes.barh(
            y - 0.2,
            1e3 * p.compute_seconds,
            height=0.36,
            color=TUNED,
            label="compute" if label else None,
        )
        axes.barh(
            y + 0.2,
            1e3 * p.communication_seconds,
            height=0.36,
            color=HARMFUL,
            label="communication" if label else None,
        )
        if not p.fits:
            axes.text(1e3 * p.least_seconds, y, " does not fit", va="center", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("ms of a step, predicted")
    axes.grid(axis="y", visible=False)
    axes.legend(fontsize=8)


def _measured(axes: Axes, result: ScalingResult) -> None:
    for y, run in enumerate(result.measured):
        axes.barh(y, run.tokens_per_second, color=TUNED)
        share = f", communication {run.communication_share:.0%}" if run.processes > 1 else ""
        axes.text(
            run.tokens_per_second,
            y,
            f" {run.tokens_per_second:.0f}{share}",
            va="center",
            fontsize=8,
        )
    names = [f"{run.strategy}, {run.processes} × CPU" for run in result.measured]
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.3)
    axes.set_xlabel(f"tokens/s measured, {result.model}")
    axes.grid(axis="y", visible=False)
