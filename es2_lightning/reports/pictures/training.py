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
    panels = figure.subplots(1, len(PANELS))
    for axes, panel in zip(panels, PANELS.values(), strict=True):
        panel(axes, metrics)
    handles, labels = panels[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def draw_loss(axes: Axes, metrics: Sequence[dict[str, Any]]) -> None:
    """The loss over the steps."""
    _line(axes, metrics, "train/loss", TUNED)
    axes.set_title("Loss")
    _over_steps(axes, metrics)


def draw_separation(axes: Axes, metrics: Sequence[dict[str, Any]]) -> None:
    """The separation of the stage's layers over the steps."""
    _line(axes, metrics, "train/separation", TUNED)
    axes.set_title("Separation of the stage's layers")
    axes.set_ylabel("mean distance, in loss.distance_unit")
    _over_steps(axes, metrics)


def draw_kl(axes: Axes, metrics: Sequence[dict[str, Any]]) -> None:
    """Both KL terms over the steps, and their threshold τ."""
    _line(axes, metrics, "train/kl", HARMLESS, "KL, harmless")
    _line(axes, metrics, "train/harmful_kl", HARMFUL, "KL, refusals")
    _line(axes, metrics, "train/kl_threshold", THRESHOLD, "τ", linestyle="--")
    axes.set_title("KL(base ‖ tuned)")
    axes.set_ylabel("nats per position")
    axes.set_yscale("log")
    # The first step's KL is 0 to rounding, and would stretch the axis by many decades.
    axes.set_ylim(bottom=1e-5)
    _over_steps(axes, metrics)


PANELS = {"loss": draw_loss, "separation": draw_separation, "kl": draw_kl}


def _over_steps(axes: Axes, metrics: Sequence[dict[str, Any]]) -> None:
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for boundary in _stage_starts(metrics):
        axes.axvline(boundary, color="black", linestyle=":", linewidth=1)


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
