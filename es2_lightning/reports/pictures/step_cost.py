"""What each optimisation of a training step leaves of its FLOPs and its memory."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from es2_lightning.reports.pictures.style import BASE, HARMFUL, HARMLESS, THRESHOLD, TUNED
from es2_lightning.training.step_benchmark.results import StepResult
from es2_lightning.training.step_benchmark.ways import NAIVE

PARTS = (("forward", TUNED), ("backward", HARMFUL), ("head", HARMLESS))


def draw(result: StepResult) -> Figure:
    """Bars for each way: FLOPs with the floor on the left, memory on the right."""
    figure = Figure(figsize=(10, 0.34 * len(result.ways) + 1.7), layout="constrained")
    flops, memory = figure.subplots(1, 2, sharey=True)
    _flops(flops, result)
    _memory(memory, result)
    flops.set_yticks(range(len(result.ways)), [way.words.strip() for way in result.ways])
    flops.invert_yaxis()
    m = result.measured
    positions = "all positions" if m.kl_positions == "all" else "the last position"
    where = f"{m.model}, {m.dtype}, layer {m.layer} of {m.depth}, KL on {positions}"
    figure.suptitle(f"A training step: {where}", fontsize=11)
    return figure


def _flops(axes: Axes, result: StepResult) -> None:
    naive = result.counted[NAIVE].flops.total
    for y, way in enumerate(result.ways):
        left = 0.0
        flops = result.counted[way.name].flops
        for part, colour in PARTS:
            width = getattr(flops, part) / naive
            label = part if y == 0 else None
            axes.barh(y, width, left=left, color=colour, label=label)
            left += width
        axes.text(left, y, f" {1 / left:.2f}×", va="center", fontsize=8)
        floor = result.counted[way.name].floor
        if floor is not None:
            axes.vlines(floor / naive, y - 0.4, y + 0.4, color="black", linewidth=1.5)
    axes.plot([], [], color="black", linewidth=1.5, label="floor of the same options")
    axes.axvline(
        result.absolute_floor / naive, color=THRESHOLD, linestyle="--", label="absolute floor"
    )
    axes.set_xlabel("FLOPs / naive")
    axes.set_xlim(0, 1.25)
    axes.grid(axis="y", visible=False)
    axes.legend(loc="lower right", fontsize=8)


def _memory(axes: Axes, result: StepResult) -> None:
    naive = result.counted[NAIVE]
    whole = (naive.step_bytes or 0) + naive.weight_bytes
    for y, way in enumerate(result.ways):
        counted = result.counted[way.name]
        if counted.step_bytes is None:
            continue
        left = 0.0
        parts = (
            ("step", counted.step_bytes, TUNED),
            ("weights", counted.weight_bytes, BASE),
            ("cache", counted.cache_bytes, HARMLESS),
        )
        for part, size, colour in parts:
            label = part if y == 0 else None
            axes.barh(y, size / whole, left=left, color=colour, label=label)
            left += size / whole
        saved = result.step_bytes_saved(way.name)
        axes.text(left, y, f" step {saved:.1f}×", va="center", fontsize=8)
    axes.set_xlabel("bytes / naive")
    axes.set_xlim(0, 1.25)
    axes.grid(axis="y", visible=False)
    axes.legend(loc="lower right", fontsize=8)
