"""How all pictures look: colours that colour-blind readers can tell apart, and sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from es2_lightning.evaluation.comparison import Comparison
from es2_lightning.evaluation.measurement import Measurement
from es2_lightning.reports.cells import shortened

# Okabe and Ito's palette.
BASE, TUNED = "#7f7f7f", "#0072B2"
HARMFUL, HARMLESS = "#D55E00", "#009E73"
THRESHOLD = "#CC79A7"
LONGEST_LABEL = 30
"""Characters of a model's name in a legend."""
ABSENT = "#ececec"
"""Behind words that stand where a figure is missing."""

_STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "savefig.dpi": 150,
}


class Look(NamedTuple):
    """A model in all pictures: by colour, and by marker where there is no colour.

    Attributes:
        comparison: Whose figures are drawn.
        column: Which of its models: 0, the base, or 1, the tuned one.
    """

    comparison: Comparison
    column: int
    label: str
    colour: str
    marker: str
    linestyle: str

    @property
    def measured(self) -> Measurement:
        """The model's measurement."""
        return self.comparison.measurements[self.column]


def looks(comparison: Comparison) -> list[Look]:
    """The models to draw, the base first."""
    styles = ((BASE, "o", "--"), (TUNED, "s", "-"))
    return [
        Look(comparison, column, shortened(measured.model, LONGEST_LABEL), *style)
        for column, (measured, style) in enumerate(
            zip(comparison.measurements, styles, strict=False)
        )
    ]


def one_panel(
    draw: Callable[[Axes], None], *, size: tuple[float, float] = (4.8, 3.6), columns: int = 3
) -> Figure:
    """A figure of a single panel, its legend below where it can cover nothing.

    Args:
        draw: Draws into the panel.
        size: Width and height in inches.
        columns: Of the legend.
    """
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    draw(axes)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=9)
    return figure


@contextmanager
def house_style() -> Iterator[None]:
    """The project's settings inside the `with`, and matplotlib's own again afterwards."""
    with matplotlib.rc_context(_STYLE):
        yield


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    try:
        figure.savefig(temporary, format="png")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
