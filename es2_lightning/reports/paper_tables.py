"""Our figures beside the paper's, with the difference: for a page, and for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from es2_lightning.reports.cells import WIDTH
from es2_lightning.reports.page.tables import Cell, PageRow, PageTable
from es2_lightning.reports.paper_figures import (
    MODELS,
    STANDS_IN,
    TITLES,
    BesidePaper,
    method_of,
    paper_rows,
)

if TYPE_CHECKING:
    from es2_lightning.reports.page.run_files import RunFiles

NAMES = {
    "base": "Base",
    "stl": "STL",
    "circuit_breakers": "Circuit breakers (not in the paper)",
    "es2": "ES2",
}
METRICS = {"keyword": "Keyword", "answer": "Answer", "useful": "Useful"}
NO_DEFENCE = "means nothing: the attack does not recover more from the base than asking does"


def paper_tables(runs: Sequence[RunFiles]) -> list[PageTable]:
    """One table for each of the paper's that the runs have something to say about.

    Args:
        runs: Read from their folders; a model that is not in the paper stands beside Llama-2.
    """
    tables = []
    for model in dict.fromkeys(str(run.choices.get("model", "")) for run in runs):
        own = [run for run in runs if str(run.choices.get("model", "")) == model]
        beside = model if model in MODELS else STANDS_IN
        for number, title in TITLES.items():
            if found := paper_rows(own, model=beside, table=number):
                shown = _table(title, found, model=model, beside=beside)
                tables.append(replace(shown, about=f"{shown.about}{_repeated(own)}"))
    return tables


def _repeated(runs: Sequence[RunFiles]) -> str:
    """Which methods have several runs, of which a table shows one."""
    counts = Counter(method_of(run) for run in runs if run.comparison is not None)
    several = [f"{_name(method)} ({n})" for method, n in counts.items() if n > 1]
    return f" Of several runs the first is shown: {', '.join(several)}." if several else ""


def terminal_table(table: PageTable) -> Table:
    """The same, 80 columns wide."""
    shown = Table(
        title=table.title,
        caption=table.about,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        width=WIDTH,
        pad_edge=False,
    )
    for i, column in enumerate(table.columns):
        shown.add_column(column, justify="right" if i else "left", no_wrap=bool(i))
    for row in table.rows:
        cells = [
            f"{cell.text} [dim]{cell.interval}[/dim]".strip() if cell.interval else cell.text
            for cell in row.cells
        ]
        if cells:
            shown.add_row(f"  {row.words}", *cells)
        else:
            shown.add_row(f"[bold]{row.words}[/bold]")
    return shown


def _table(title: str, found: Sequence[BesidePaper], *, model: str, beside: str) -> PageTable:
    about = f"Percent, 95 % intervals; the paper's figures are those of {beside}."
    if found[0].key.table in "1679":
        about = (
            "Defended: refused, or collapsed into incoherent or unrelated words, as the paper "
            f"counts. {about}"
        )
    if found[0].key.table == "8":
        about = (
            "Absolute, 95 % intervals: states that grew need longer shifts, so this alone shows no "
            f"robustness. The paper's figures are those of {beside}."
        )
    if model != beside:
        about += f" {model} is not in the paper: what differs also differs because the models do."
    if any(one.key.attack == "scav" for one in found):
        about += " The paper's SCAV shifts raw states; ours is as attack.scav was set."
    return PageTable(title, ["", "Ours", "Paper", "Difference"], list(_rows(found)), about)


def _rows(found: Sequence[BesidePaper]) -> Iterator[PageRow]:
    for method, some in groupby(found, key=lambda one: one.key.method):
        yield PageRow(_name(method))
        for one in some:
            attack = "" if one.key.attack == "none" else f"{one.key.attack}, "
            words = attack + METRICS.get(one.key.metric, one.key.metric.replace("_", " "))
            yield PageRow(words, _cells(one))


def _cells(one: BesidePaper) -> list[Cell]:
    assert one.ours is not None
    paper = Cell() if one.paper is None else Cell(_figure(one.paper, one))
    if one.means_nothing:
        return [Cell("n/a", note=NO_DEFENCE), paper, Cell()]
    low, high = (_figure(x, one) for x in (one.ours.low, one.ours.high))
    ours = Cell(_figure(one.ours.value, one), f"{low}–{high}")
    difference = one.difference
    away = Cell() if difference is None else Cell(f"{_figure(difference, one, sign='+')}")
    return [ours, paper, away]


def _figure(value: float, one: BesidePaper, *, sign: str = "") -> str:
    decimals = {"2": 3, "8": 2}.get(one.key.table, 0)
    if one.key.metric == "exact answers":
        decimals = 0
    # Without the sign of a 0: what is rounded to it may be below.
    return f"{round(value, decimals) + 0.0:{sign}.{decimals}f}"


def _name(method: str) -> str:
    if ":" not in method:
        return NAMES.get(method, method)
    layers = method.partition(":")[2].replace("-1", "L").split("+")
    return f"ES2 on layer{'s' if len(layers) > 1 else ''} {' and '.join(layers)}"
