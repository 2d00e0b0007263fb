"""The report of an evaluation: tables on the terminal and in a file, and pictures."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from es2_lightning.atomic_files import write_atomically
from es2_lightning.evaluation.attacks.scav_worst import AXIS
from es2_lightning.evaluation.comparison import Comparison
from es2_lightning.evaluation.verdict import WORST, verdict
from es2_lightning.reports.attack_table import attack_notes
from es2_lightning.reports.cells import WIDTH
from es2_lightning.reports.pictures import (
    budget_curve,
    layers,
    outcomes,
    projection,
    shifts,
    training,
)
from es2_lightning.reports.pictures.style import house_style, save
from es2_lightning.reports.tables import comparison_table

log = logging.getLogger(__name__)


def write_report(
    comparison: Comparison,
    folder: Path,
    *,
    separated_layers: Sequence[int],
    metrics: Sequence[dict[str, Any]] = (),
    console: Console | None = None,
) -> list[Path]:
    """Print the tables and the verdict; write `table.txt` and the pictures.

    Args:
        comparison: Base against tuned, or one model alone.
        folder: Where they go, the pictures into `pictures/` in it.
        separated_layers: Marked in the pictures; may be empty.
        metrics: What training logged, a dict for each step.
        console: Where the tables are printed.

    Returns:
        The written files. A picture for which nothing was measured is left out; one that cannot be
        drawn is left out and reported in the log.
    """
    console = console or Console()
    _print(comparison, console)
    text = io.StringIO()
    _print(comparison, Console(file=text, width=WIDTH, no_color=True, force_terminal=False))
    folder.mkdir(parents=True, exist_ok=True)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    write_atomically(folder / "table.txt", "\n".join(lines) + "\n")
    pictures = _draw_all(_drawings(comparison, separated_layers, metrics), folder / "pictures")
    if pictures:
        console.print(f"Pictures: {folder / 'pictures'}", markup=False, soft_wrap=True)
    return [folder / "table.txt", *pictures]


def _drawings(
    comparison: Comparison, separated: Sequence[int], metrics: Sequence[dict[str, Any]]
) -> dict[str, Callable[[], Figure | None]]:
    """Each picture by its file's name."""
    drawings: dict[str, Callable[[], Figure | None]] = {
        "outcomes": partial(outcomes.draw, comparison),
        "shifts": partial(shifts.draw, comparison, separated),
        "layers": partial(layers.draw, comparison, separated),
        "projection": partial(projection.draw, comparison, separated),
    }
    for attack, axis in comparison.base_budgets:
        headline = (attack, axis) == (WORST, AXIS)
        name = "budget_curve" if headline else f"budget_curve_{attack}_{axis}"
        drawings[name] = partial(budget_curve.draw, comparison, attack, axis)
    if metrics:
        drawings["training"] = partial(training.draw, metrics)
    return drawings


def _draw_all(drawings: dict[str, Callable[[], Figure | None]], folder: Path) -> list[Path]:
    written = []
    with house_style():
        for name, draw in drawings.items():
            try:
                figure = draw()
                if figure is not None:
                    written.append(save(figure, folder / f"{name}.png"))
            except Exception:
                # The numbers are written already; a broken picture must not fail the run.
                log.exception("The picture %s could not be drawn", name)
    return written


def _print(comparison: Comparison, console: Console) -> None:
    console.print(comparison_table(comparison))
    said = attack_notes(comparison)
    for sentence in verdict(comparison):
        # The table has just said some of them.
        if sentence not in said:
            console.print(Padding(escape(sentence), (0, 0, 0, 2)))
