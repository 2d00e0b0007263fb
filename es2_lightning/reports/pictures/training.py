"""Losses, their terms, and KL against its threshold, over the optimizer steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from es2_lightning.reports.pictures.style import HARMFUL, HARMLESS, THRESHOLD, TUNED


def draw(metrics: Sequence[dict[str, Any]]) -> Figure | None:
    """A panel for each thing that the method logs; stages are set apart.

    Args:
        metrics: What was logged, a dict for each step with `step` and `train/…` keys.
    """
    names = panels_of(metrics)
    if not names:
        return None
    figure = Figure(figsize=(3.5 * len(names), 3.6), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    found: dict[str, Any] = {}
    for axes, name in zip(panels, names, strict=True):
        PANELS[name](axes, metrics)
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    if found:
        figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=4)
    return figure


def panels_of(metrics: Sequence[dict[str, Any]]) -> list[str]:
    """Which of `PANELS` have something to show."""
    logged = {key for row in metrics for key, value in row.items() if value is not None}
    return [name for name in PANELS if logged & set(SHOWN[name])]


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


def draw_terms(axes: Axes, metrics: Sequence[dict[str, Any]]) -> None:
    """The terms of the loss of a method that ES2 is compared with."""
    colours = (HARMLESS, HARMFUL)
    for i, key in enumerate(k for k in SHOWN["terms"] if _points(metrics, k)[0]):
        words = key.removeprefix("train/").replace("_", " ")
        _line(axes, metrics, key, colours[i % len(colours)], words)
    axes.set_title("Terms of the loss")
    _over_steps(axes, metrics)


def draw_runs(axes: Axes, runs: Sequence[Curve], panel: str) -> None:
    """One figure of several runs: `separation` or `kl`."""
    key = SHOWN[panel][0]
    for run in runs:
        _line(axes, run.metrics, key, run.colour, run.label, run.linestyle)
    if panel == "kl":
        axes.set_yscale("log")
        axes.set_ylim(bottom=1e-5)
    axes.set_title({"kl": "KL(base ‖ tuned), harmless", "separation": "Separation"}[panel])
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


class Curve(NamedTuple):
    """What a run logged, and how it is drawn."""

    label: str
    colour: str
    linestyle: str
    metrics: Sequence[dict[str, Any]]


PANELS = {
    "loss": draw_loss,
    "separation": draw_separation,
    "kl": draw_kl,
    "terms": draw_terms,
}
SHOWN = {
    "loss": ("train/loss",),
    "separation": ("train/separation",),
    "kl": ("train/kl", "train/harmful_kl"),
    "terms": (
        "train/answer_loss",
        "train/refusal_loss",
        "train/rerouting",
        "train/retention",
    ),
}
"""What each panel shows, by the names under which it is logged."""


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
