"""What a sweep's jobs bought, and at what price: safety against capability kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from es2_lightning.evaluation.headline_figures import FIGURES
from es2_lightning.reports.cells import shortened
from es2_lightning.reports.pictures.style import LONGEST_LABEL
from es2_lightning.reports.sweep_rows import pareto_front

PRICE = "capability_kept"
GAINS = ("scav_dsr", "half_yield_ratio")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7f7f7f")
"""Okabe and Ito's palette: one for each layer set, and grey for all beyond."""
MARKERS = "osD^vP*X"
SMALLEST, LARGEST = 30.0, 170.0
"""Areas of markers, in square points, over the KL weights."""


class Drawn(Protocol):
    """A job, or a run, as a point of the picture."""

    @property
    def number(self) -> int:
        """By which it is told from others."""
        ...

    @property
    def layers(self) -> str:
        """Those that it separates."""
        ...

    @property
    def kl_weight(self) -> float | None:
        """None where it is not known."""
        ...

    @property
    def figures(self) -> Mapping[str, float]:
        """By the names of FIGURES."""
        ...


def draw(
    rows: Sequence[Drawn], only: Sequence[str] = GAINS, *, what: str = "jobs"
) -> Figure | None:
    """Two panels over the capability kept: SCAV's defence rate, and the half-yield multiple.

    Colours and markers are layer sets, sizes are KL weights; a line of steps joins what no other
    job beats. None where no job has the figures.

    Args:
        rows: The points.
        only: Which of the panels.
        what: What the points are called.
    """
    known = [row for row in rows if not math.isnan(row.figures[PRICE])]
    gains = [name for name in only if any(not math.isnan(r.figures[name]) for r in known)]
    if not gains:
        return None
    figure = Figure(figsize=(5.2 * len(gains), 4.4), layout="constrained")
    looks = _Looks(known)
    panels = figure.subplots(1, len(gains), squeeze=False)[0]
    for axes, gain in zip(panels, gains, strict=True):
        _panel(axes, [row for row in known if not math.isnan(row.figures[gain])], gain, looks, what)
    figure.legend(handles=looks.handles(), loc="outside lower center", ncols=2 * len(gains))
    return figure


class _Looks:
    """How a job's layer set and KL weight are shown in all panels."""

    def __init__(self, rows: Sequence[Drawn]) -> None:
        self.layers = list(dict.fromkeys(row.layers for row in rows))
        weights = {row.kl_weight for row in rows if row.kl_weight is not None}
        self.weights = sorted(weights)

    def colour(self, layers: str) -> str:
        return COLOURS[min(self.layers.index(layers), len(COLOURS) - 1)]

    def marker(self, layers: str) -> str:
        return MARKERS[min(self.layers.index(layers), len(MARKERS) - 1)]

    def area(self, weight: float | None) -> float:
        if weight is None or len(self.weights) < 2:
            return (SMALLEST + LARGEST) / 2
        place = self.weights.index(weight) / (len(self.weights) - 1)
        return SMALLEST + place * (LARGEST - SMALLEST)

    def handles(self) -> list[Line2D]:
        """Of the legend: each layer set, and each weight where there are few."""
        found = [
            Line2D(
                [], [], linestyle="", marker=self.marker(name), color=self.colour(name),
                label=f"layers {shortened(name, LONGEST_LABEL)}",
            )
            for name in self.layers
        ]  # fmt: skip
        if 1 < len(self.weights) <= 6:
            found += [
                Line2D(
                    [], [], linestyle="", marker="o", color="none", markeredgecolor="black",
                    markersize=math.sqrt(self.area(weight)), label=f"KL weight {weight:g}",
                )
                for weight in self.weights
            ]  # fmt: skip
        return [*found, Line2D([], [], color="black", linewidth=1, label="Pareto front")]


def _panel(axes: Axes, rows: Sequence[Drawn], gain: str, looks: _Looks, what: str) -> None:
    finite = [row.figures[gain] for row in rows if math.isfinite(row.figures[gain])]
    # No shift that was tried recovers half: above all that have a number.
    top = 1.2 * max([*finite, 1.0])
    infinite = any(math.isinf(row.figures[gain]) for row in rows)
    factor = 100 if FIGURES[gain].share else 1
    points = [(row.figures[PRICE], row.figures[gain]) for row in rows]
    drawn = [(100 * x, factor * (top if math.isinf(y) else y)) for x, y in points]
    # The smaller ones above the larger.
    for i in sorted(range(len(rows)), key=lambda i: -looks.area(rows[i].kl_weight)):
        row, (x, y) = rows[i], drawn[i]
        axes.scatter(
            x,
            y,
            s=looks.area(row.kl_weight),
            color=looks.colour(row.layers),
            marker=looks.marker(row.layers),
            edgecolor="white",
            linewidth=0.6,
            alpha=0.85,
            zorder=3,
        )
    front = pareto_front(points)
    # As steps: what lies between two jobs was not run.
    line = list(zip(*(drawn[i] for i in front), strict=True))
    axes.plot(*line, color="black", linewidth=1, drawstyle="steps-pre", zorder=2)
    labels: dict[tuple[float, float], list[str]] = {}
    for i in front:
        labels.setdefault(drawn[i], []).append(str(rows[i].number))
    for number, (point, jobs) in enumerate(labels.items()):
        axes.annotate(
            ", ".join(jobs),
            point,
            # Neighbours on the front must not write over each other.
            xytext=(5, 6 if number % 2 == 0 else -12),
            textcoords="offset points",
            fontsize=8,
        )
    if infinite:
        axes.axhline(top, color="#7f7f7f", linestyle=":", linewidth=1)
        axes.annotate(
            "no shift that was tried", (0.98, top), xycoords=("axes fraction", "data"),
            xytext=(0, 4), textcoords="offset points", fontsize=8, ha="right",
        )  # fmt: skip
    if gain == "half_yield_ratio":
        axes.axhline(1, color="#7f7f7f", linestyle="--", linewidth=1)
        axes.set_ylim(bottom=0)
    else:
        axes.set_ylim(-3, 108)
    axes.set_xlabel(FIGURES[PRICE].words)
    axes.set_ylabel(FIGURES[gain].words)
    axes.set_title(f"n = {len(rows)} {what}; numbers: {what} on the front")
