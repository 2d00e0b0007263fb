"""What a model could do before and should still do: requests without harm, and capability."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from es2_lightning.evaluation.outcomes import Outcome
from es2_lightning.reports.cells import shortened
from es2_lightning.reports.harmless_table import KINDS
from es2_lightning.reports.pictures.outcomes import HEIGHT, LONGEST_NAME, OUTCOMES
from es2_lightning.reports.pictures.style import HARMLESS, Look, one_panel

# As in the picture of attacks, but that an answer is what is wanted here.
LOOKS = {
    Outcome.ANSWERED: (HARMLESS, ""),
    **{Outcome(name): look for name, look in OUTCOMES.items() if name != "recovered"},
}
MOST_TASKS = 24


def draw_harmless(models: Sequence[Look]) -> Figure | None:
    """What became of requests that are not harmful: a bar for each kind and model."""
    bars = [
        (f"{words}: {look.label}", made.outcomes(look.measured.headline))
        for kind, words in KINDS.items()
        for look in models
        for measured, made in look.measured.direct.items()
        if measured == kind
    ]
    if not bars:
        return None
    figure = Figure(figsize=(6.2, 1.3 + 0.3 * len(bars)), layout="constrained")
    axes = figure.subplots()
    drawn = set()
    for place, (_, outcomes) in enumerate(bars):
        left = 0.0
        for outcome, (colour, hatch) in LOOKS.items():
            width = 100 * outcomes.count(outcome) / len(outcomes)
            if width == 0:
                continue
            axes.barh(
                place, width, left=left, height=HEIGHT, facecolor=colour, hatch=hatch,
                edgecolor="#555555", linewidth=0.5,
            )  # fmt: skip
            drawn.add(outcome)
            left += width
    axes.set_yticks(range(len(bars)), [shortened(words, 2 * LONGEST_NAME) for words, _ in bars])
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_title("Requests that are not harmful")
    axes.set_xlabel("% of prompts")
    axes.grid(axis="y", visible=False)
    figure.legend(
        handles=[
            Patch(facecolor=colour, hatch=hatch, edgecolor="#555555", linewidth=0.5, label=outcome)
            for outcome, (colour, hatch) in LOOKS.items()
            if outcome in drawn
        ],
        loc="outside lower center",
        ncols=len(LOOKS),
    )
    return figure


def draw_capability(models: Sequence[Look]) -> Figure | None:
    """Shares of tasks that are solved, with 95 % intervals; a line for each task."""
    tasks = _tasks(models)
    if not tasks:
        return None
    height = 1.4 + (0.2 + 0.1 * len(models)) * len(tasks)
    return one_panel(lambda axes: _capability(axes, models, tasks), size=(6.2, height))


def _tasks(models: Sequence[Look]) -> list[str]:
    """Figures that are shares; of very many the first."""
    found = [
        row
        for look in models
        for row in look.comparison.rows
        if row.attack == "none" and row.layer is None
    ]
    other = {
        row.metric for row in found for e in (row.base, row.tuned) if e and not 0 <= e.value <= 1
    }
    shares = dict.fromkeys(row.metric for row in found if row.metric not in other)
    return list(shares)[:MOST_TASKS]


def _capability(axes: Axes, models: Sequence[Look], tasks: Sequence[str]) -> None:
    step = 0.7 / len(models)
    for number, look in enumerate(models):
        places, points = [], []
        for place, task in enumerate(tasks):
            row = look.comparison.row("none", task)
            estimate = (row.base, row.tuned)[look.column] if row else None
            if estimate is not None:
                places.append(place + step * (number - (len(models) - 1) / 2))
                points.append(estimate)
        values = [100 * p.value for p in points]
        ends = [
            [100 * (p.value - p.low) for p in points],
            [100 * (p.high - p.value) for p in points],
        ]
        axes.errorbar(
            values, places, xerr=ends, fmt=look.marker, color=look.colour, markersize=4,
            capsize=2, linewidth=1.2, label=look.label, clip_on=False,
        )  # fmt: skip
    names = [shortened(task.removesuffix("/answered"), 2 * LONGEST_NAME) for task in tasks]
    axes.set_yticks(range(len(tasks)), names)
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    axes.set_xlim(right=100)
    axes.set_title("Tasks solved")
    axes.set_xlabel("% solved (95 % interval)")
