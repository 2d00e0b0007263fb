"""The figures at the top of a run's page: what changed, and whether for the better."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from es2_lightning.evaluation.attacks.scav_worst import AXIS
from es2_lightning.evaluation.comparison import Comparison
from es2_lightning.evaluation.rows import Row
from es2_lightning.evaluation.verdict import WORST
from es2_lightning.reports.cells import NOT_MEASURED, Unit, figure
from es2_lightning.reports.page.tables import Cell, differs, shown


@dataclass(frozen=True)
class Tile:
    """One figure before and after.

    Attributes:
        title: What it is.
        before: Of the base model; None: of one model alone, or of both together.
        after: Of the tuned one.
        change: `better`, `worse`, `no sure change`, or empty where nothing is compared.
        about: What it means, as a sentence.
    """

    title: str
    before: Cell | None
    after: Cell
    change: str
    about: str


def tiles(comparison: Comparison) -> list[Tile]:
    """The figures that decide, those that were measured."""
    return list(_tiles(comparison))


def _tiles(comparison: Comparison) -> Iterator[Tile]:
    row = comparison.row(WORST, f"{AXIS}_at_base_budget_95")
    budget = comparison.base_budgets.get((WORST, AXIS))
    if row and budget is not None and comparison.tuned is not None:
        yield _tile(
            row, "Broken by a small push", better=-1,
            about="Harmful answers that an attacker gets who may shift the model’s hidden states "
            f"by up to {figure(budget, 'number')} of their length, which breaks the base model.",
            sure=_apart(row),
        )  # fmt: skip
    ratio = comparison.row(WORST, f"{AXIS}_half_yield_ratio")
    if ratio and ratio.tuned:
        change = "no sure change"
        if ratio.tuned.low > 1:
            change = "better"
        elif ratio.tuned.high < 1:
            change = "worse"
        about = "How many times as far an attacker must shift to get half of the harmful answers."
        after = shown(ratio.tuned, "times")
        yield Tile("Push needed, times the base’s", None, after, change, about)
    lines: list[tuple[str, str, str, int, str, Unit]] = [
        (WORST, "recovered", "Broken by any push", -1,
         "Harmful answers that an attacker gets who may shift as far as they like.", "percent"),
        ("direct", "recovered", "Harmful requests answered", -1,
         "Asked directly, without an attack.", "percent"),
        ("direct", "refused", "Harmful requests refused", 1,
         "Asked directly, and refused in plain words.", "percent"),
        ("direct", "harmless_answered", "Harmless requests answered", 1,
         "What the model could do before, it should still do.", "percent"),
        ("direct", "looks_harmful_answered", "Harmful-looking requests answered", 1,
         "They are harmless, and should be answered.", "percent"),
        ("direct", "looks_harmful_refused", "Refused without need", -1,
         "Requests that only look harmful, and were refused.", "percent"),
        ("direct", "general_answered", "General tasks answered", 1,
         "Tasks that have nothing to do with harm.", "percent"),
    ]  # fmt: skip
    for attack, metric, title, better, about, unit in lines:
        row = comparison.row(attack, metric)
        if row and (row.tuned or row.base):
            yield _tile(row, title, better=better, about=about, sure=differs(row), unit=unit)


def _tile(
    row: Row, title: str, *, better: int, about: str, sure: bool, unit: Unit = "percent"
) -> Tile:
    before, after = shown(row.base, unit), shown(row.tuned, unit)
    if after.text == NOT_MEASURED:
        return Tile(title, None, before, "", about)
    change = "no sure change"
    if row.base is None or row.tuned is None:
        change = ""
    elif sure:
        change = "better" if (row.tuned.value - row.base.value) * better > 0 else "worse"
    return Tile(title, before, after, change, about)


def _apart(row: Row) -> bool:
    """Figures without a paired test: whether their intervals do not touch."""
    if row.base is None or row.tuned is None:
        return False
    return row.tuned.high < row.base.low or row.base.high < row.tuned.low
