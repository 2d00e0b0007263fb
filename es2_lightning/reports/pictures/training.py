"""Losses, and KL against its threshold, over the optimizer steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from es2_lightning.reports.pictures.style import HARMFUL, HARMLESS, THRESHOLD, TUNED


def draw(metrics: Sequence[dict[str, Any]]) -> Figure:
    """Three panels: the loss, the separation, and both KL terms with τ; stages are set apart.

    Args:
        metrics: What was logged, a dict for each step with `step` and `train/…` keys.
    """
    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    loss, separation, kl = figure.subplots(1, 3)
    _line(loss, metrics, "train/loss", TUNED)
    loss.set_title("Loss")
    _line(separation, metrics, "train/separation", TUNED)
    separation.set_title("Separation of the stage's layers")
    separation.set_ylabel("mean distance, in loss.distance_unit")
    _line(kl, metrics, "train/kl", HARMLESS, "KL, harmless")
    _line(kl, metrics, "train/harmful_kl", HARMFUL, "KL, refusals")
    _line(kl, metrics, "train/kl_threshold", THRESHOLD, "τ", linestyle="--")
    kl.set_title("KL(base ‖ tuned)")
    kl.set_ylabel("nats per position")
    kl.set_yscale("log")
    # The first step's KL is 0 to rounding, and would stretch the axis by many decades.
    kl.set_ylim(bottom=1e-5)
    for axes in (loss, separation, kl):
        axes.set_xlabel("optimizer step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for boundary in _stage_starts(metrics):
            axes.axvline(boundary, color="black", linestyle=":", linewidth=1)
    handles, labels = kl.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _line(
    axes: Axes,
    metrics: Sequence[dict[str, Any]],
    key: str,
    colour: str,
    label: str | None = None,
    linestyle: str = "-",
) -> None:
    steps, values = _points(metrics, key)
    if values:
        # τ changes with the stage, at once.
        drawstyle = "steps-mid" if key == "train/kl_threshold" else "default"
        axes.plot(
            steps, values, color=colour, label=label, linestyle=linestyle, drawstyle=drawstyle
        )


def _points(metrics: Sequence[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    kept = [(row["step"], row[key]) for row in metrics if row.get(key) is not None]
    return [step for step, _ in kept], [value for _, value in kept]


def _stage_starts(metrics: Sequence[dict[str, Any]]) -> list[float]:
    steps, stages = _points(metrics, "train/stage")
    return [steps[i] - 0.5 for i in range(1, len(steps)) if stages[i] != stages[i - 1]]
