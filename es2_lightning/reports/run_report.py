"""The report of a training run: a table on the terminal and in a file, and pictures."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from es2_lightning.evaluation.comparison import Comparison
from es2_lightning.evaluation.results_files import write_atomically
from es2_lightning.evaluation.verdict import verdict
from es2_lightning.reports.pictures import budget_curve, layers, projection, training
from es2_lightning.reports.pictures.style import house_style, save
from es2_lightning.reports.tables import comparison_table

log = logging.getLogger(__name__)
WIDTH = 80


def write_report(
    comparison: Comparison,
    folder: Path,
    *,
    separated_layers: Sequence[int],
    metrics: Sequence[dict[str, Any]] = (),
    console: Console | None = None,
) -> list[Path]:
    """Print the table and the verdict; write `table.txt` and the pictures.

    Args:
        comparison: Base against tuned.
        folder: The run's folder; pictures go to `pictures/` in it.
        separated_layers: Marked in the pictures.
        metrics: What training logged, a dict for each step.
        console: Where the table is printed.

    Returns:
        The written files. A picture that cannot be drawn is reported in the log and left out.
    """
    console = console or Console()
    _print(comparison, console)
    text = io.StringIO()
    _print(comparison, Console(file=text, width=WIDTH, no_color=True, force_terminal=False))
    write_atomically(folder / "table.txt", text.getvalue())
    drawings: dict[str, Callable[[], Figure]] = {
        "budget_curve": lambda: budget_curve.draw(comparison),
        "layers": lambda: layers.draw(comparison, separated_layers),
        "projection": lambda: projection.draw(comparison),
    }
    if metrics:
        drawings["training"] = lambda: training.draw(metrics)
    written = [folder / "table.txt"]
    with house_style():
        for name, draw in drawings.items():
            try:
                written.append(save(draw(), folder / "pictures" / f"{name}.png"))
            except Exception:
                # The numbers are written already; a broken picture must not fail the run.
                log.exception("The picture %s could not be drawn", name)
    return written


def _print(comparison: Comparison, console: Console) -> None:
    console.print(comparison_table(comparison))
    for sentence in verdict(comparison):
        console.print(Padding(escape(sentence), (0, 0, 0, 2)))
