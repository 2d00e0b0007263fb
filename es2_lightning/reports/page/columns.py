"""What is laid side by side: a base model and the models that were tuned from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from es2_lightning.evaluation.comparison import Comparison
from es2_lightning.evaluation.intervals import Estimate
from es2_lightning.evaluation.measurement import Measurement
from es2_lightning.evaluation.rows import Row
from es2_lightning.reports.cells import side
from es2_lightning.reports.pictures.style import BASE, TUNED, Look

RUN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000", "#56B4E9")
"""Okabe and Ito's palette, for the tuned models of several runs."""
RUN_MARKERS = "s^vDP*X"
RUN_LINES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Column:
    """A model in a table and in the pictures.

    Attributes:
        label: Its heading.
        comparison: What was measured.
        place: 0: its base model; 1: its tuned one.
        colour: In pictures.
        marker: In pictures.
    """

    label: str
    comparison: Comparison
    place: int
    colour: str
    marker: str

    @property
    def measured(self) -> Measurement:
        """The model's measurement."""
        return self.comparison.measurements[self.place]

    @property
    def look(self) -> Look:
        """How it is drawn."""
        style = "--" if self.place == 0 else "-"
        return Look(self.comparison, self.place, self.label, self.colour, self.marker, style)

    def row(self, attack: str, metric: str, judge: str | None = None) -> Row | None:
        """The figure of both models of its comparison; of the headline judge by default."""
        return self.comparison.row(attack, metric, judge=judge)

    def estimate(self, attack: str, metric: str, judge: str | None = None) -> Estimate | None:
        """This model's figure; None where it was not measured."""
        return side(self.row(attack, metric, judge), self.place)


def columns_of_run(comparison: Comparison) -> list[Column]:
    """The base model, and the tuned one where there is one."""
    looks = ((BASE, "o"), (TUNED, "s"))
    return [
        Column(measured.model, comparison, place, *look)
        for place, (measured, look) in enumerate(zip(comparison.measurements, looks, strict=False))
    ]


def run_colour(place: int) -> str:
    """The colour of a run, by its place among the runs of a page."""
    return RUN_COLOURS[place % len(RUN_COLOURS)]


def run_linestyle(place: int) -> str:
    """How its line is drawn where there are no markers, so that colours are not all."""
    return RUN_LINES[place % len(RUN_LINES)]


def columns_of_runs(runs: Sequence[tuple[str, Comparison | None]]) -> list[Column]:
    """The first measured run's base model, then what each run made of its own.

    Args:
        runs: Names and results; of a run that measured one model alone, that model. One that was
            not measured has no column.
    """
    measured = [comparison for _, comparison in runs if comparison]
    if not measured:
        return []
    columns = [Column(measured[0].base.model, measured[0], 0, BASE, "o")]
    for place, (name, comparison) in enumerate(runs):
        if comparison is not None:
            model = len(comparison.measurements) - 1
            marker = RUN_MARKERS[place % len(RUN_MARKERS)]
            columns.append(Column(name, comparison, model, run_colour(place), marker))
    return columns
