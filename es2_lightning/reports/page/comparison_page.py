"""`compare.html`: several runs side by side, in the same sections as a run's own page."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich import box
from rich.markup import escape
from rich.table import Table

from es2_lightning.evaluation.headline_figures import FIGURES, headline_figures
from es2_lightning.reports.cells import NOT_MEASURED, figure
from es2_lightning.reports.page import drawings
from es2_lightning.reports.page.about import config_text, differing
from es2_lightning.reports.page.checks import checks
from es2_lightning.reports.page.columns import Column, columns_of_runs, run_colour, run_linestyle
from es2_lightning.reports.page.drawings import ParetoPoint, Picture, drawn
from es2_lightning.reports.page.examples import example_sections
from es2_lightning.reports.page.labels import labels, numbers
from es2_lightning.reports.page.rendering import write_page
from es2_lightning.reports.page.run_files import RunFiles, command_line
from es2_lightning.reports.page.run_page import REPORT, judged, page_tables
from es2_lightning.reports.page.tables import Cell, PageRow, PageTable
from es2_lightning.reports.pictures.training import Curve

COMPARISON = "compare.html"
MOST_INSIDE = 8
"""Runs whose hidden states are shown."""
SECTIONS = {
    "runs": "The runs",
    "paper": "Beside the paper",
    "attacks": "Attacks",
    "kept": "What they kept",
    "checks": "Careful",
    "training": "Training",
    "layers": "Inside",
    "figures": "All figures",
    "examples": "Examples",
    "again": "What was run",
}


def write_comparison(
    runs: Sequence[RunFiles], folder: Path, *, paper: Sequence[PageTable] = ()
) -> Path:
    """Write `compare.html`.

    Args:
        runs: At least one; what a run lacks is left out.
        folder: Where it goes.
        paper: Tables that set the runs beside a paper's figures.
    """
    names = labels(runs)
    columns = columns_of_runs([(n, run.comparison) for n, run in zip(names, runs, strict=True)])
    content: dict[str, Any] = {
        "runs_table": overview(runs, names),
        "links": _links(runs, names, folder),
        "measured": bool(columns),
        "paper": list(paper),
        "checks": _warnings(runs, names),
        "tables": page_tables(columns),
        "judged": judged(columns),
        "examples": example_sections(columns) if columns else [],
        "last": columns[-1].label if columns else "",
        "settings": _settings(runs, names),
        "again": _again(runs, paper=bool(paper)),
        "commands": [
            (name, run.repeat, config_text(run)) for name, run in zip(names, runs, strict=True)
        ],
        **_pictures(runs, names, columns),
    }
    there = {
        "runs": True,
        "attacks": content["curves"] or content["outcomes"],
        "layers": content["layers"] or content["projections"] or content["shifts"],
        "figures": content["tables"],
    }
    return write_page(
        folder / COMPARISON,
        "compare.html",
        title=f"{len(runs)} runs side by side",
        kicker="es2-lightning",
        sections=[(n, words) for n, words in SECTIONS.items() if there.get(n, content.get(n))],
        **content,
    )


def overview(runs: Sequence[RunFiles], names: Sequence[str]) -> PageTable:
    """The headline figures of each run."""
    rows = []
    for name, run in zip(names, runs, strict=True):
        found = headline_figures(run.folder)
        cells = [Cell(_figure(found[key], key)) for key in FIGURES]
        state = "" if run.complete else "not finished"
        folder_name = "" if run.name in name else run.name
        rows.append(PageRow(name, cells, ", ".join(filter(None, [folder_name, state]))))
    arrows = {1: "↑", -1: "↓"}
    heads = [f"{of.words.removesuffix(', %')} {arrows[of.better]}" for of in FIGURES.values()]
    return PageTable("The runs", ["", *heads], rows, "Shares in percent.")


def runs_table(runs: Sequence[RunFiles]) -> Table:
    """The same on the terminal, 80 columns wide."""
    table = Table(
        title="Runs",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("run", ratio=1, overflow="fold")
    for of in FIGURES.values():
        arrow = "↑" if of.better > 0 else "↓"
        table.add_column(f"{of.heading} {arrow}", justify="right", no_wrap=True)
    for name, run in zip(labels(runs), runs, strict=True):
        found = headline_figures(run.folder)
        table.add_row(escape(name), *(_figure(found[key], key) for key in FIGURES))
    table.caption = (
        "Percent, but for the half-yield (the shift that recovers half of the harmful answers, "
        "over the base's) and the KL (nats, harmless prompts)."
    )
    table.caption_justify = "left"
    return table


def _figure(value: float, name: str) -> str:
    if math.isnan(value):
        return NOT_MEASURED
    return figure(value, "percent" if FIGURES[name].share else "number")


def _links(runs: Sequence[RunFiles], names: Sequence[str], folder: Path) -> list[tuple[str, str]]:
    """Where each run's own page is, from the comparison's folder; of those that have one."""
    found = []
    for name, run in zip(names, runs, strict=True):
        page = run.folder / REPORT
        if page.exists():
            # "./": a folder's name must not be taken for an address.
            found.append((name, "./" + quote(os.path.relpath(page, folder))))
    return found


def _warnings(runs: Sequence[RunFiles], names: Sequence[str]) -> list[tuple[str, list[Any]]]:
    found = [
        (name, [one for one in checks(run) if one.status == "warning"])
        for name, run in zip(names, runs, strict=True)
    ]
    return [(name, some) for name, some in found if some]


def _settings(runs: Sequence[RunFiles], names: Sequence[str]) -> PageTable | None:
    rows = [
        PageRow(key, [Cell(value) for value in values]) for key, values in differing(runs).items()
    ]
    if not rows:
        return None
    return PageTable("What the runs differ in", ["", *names], rows)


def _pictures(
    runs: Sequence[RunFiles], names: Sequence[str], columns: Sequence[Column]
) -> dict[str, list[Picture]]:
    curves = [
        Curve(name, run_colour(place), run_linestyle(place), run.metrics)
        for place, (name, run) in enumerate(zip(names, runs, strict=True))
        if run.metrics
    ]
    separated = sorted({layer for run in runs for layer in run.layers})
    made: dict[str, list[drawings.Drawing]] = {
        "pareto": drawings.pareto_drawings(
            [_point(*one) for one in zip(numbers(runs), runs, strict=True)]
        ),
        "training": drawings.runs_training_drawings(curves),
    }
    made |= {name: [] for name in ("curves", "outcomes", "kept", "layers", "projections", "shifts")}
    if columns:
        made |= {
            "curves": drawings.budget_drawings(columns),
            "outcomes": drawings.outcome_drawings(columns),
            "kept": drawings.kept_drawings(columns),
            "layers": drawings.layer_drawings(columns, separated),
            "projections": drawings.projection_drawings(columns[: MOST_INSIDE + 1], separated),
            "shifts": drawings.shift_drawings(columns, separated),
        }
    return {name: drawn(some) for name, some in made.items()}


def _point(number: int, run: RunFiles) -> ParetoPoint:
    weight = (run.config.get("loss") or {}).get("kl_weight")
    known = float(weight) if isinstance(weight, (int, float)) else None
    layers = ",".join(map(str, run.layers)) or "–"
    return ParetoPoint(number, layers, known, headline_figures(run.folder))


def _again(runs: Sequence[RunFiles], *, paper: bool) -> str:
    folders = ",".join(_hydra(run.folder) for run in runs)
    return command_line("compare", [f"runs=[{folders}]", *(["paper=true"] if paper else [])])


def _hydra(folder: Path) -> str:
    """A path inside a list on the command line, where Hydra's grammar needs quotes."""
    text = str(folder)
    plain = all(character.isalnum() or character in "/_-.:" for character in text)
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return text if plain else f"'{escaped}'"
