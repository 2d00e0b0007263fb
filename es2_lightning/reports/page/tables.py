"""The page's tables: the same figures as on the terminal, in words for whoever knows none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from es2_lightning.evaluation.attacks.scav_worst import AXIS
from es2_lightning.evaluation.intervals import Estimate
from es2_lightning.evaluation.rows import Row
from es2_lightning.evaluation.verdict import ALPHA, WORST
from es2_lightning.reports.attack_table import NOT_EFFECTIVE, Shown, shown_attacks
from es2_lightning.reports.cells import NOT_MEASURED, Unit, cell, figure
from es2_lightning.reports.harmless_table import KINDS
from es2_lightning.reports.page.columns import Column
from es2_lightning.reports.page.words import ATTACKS, OUTCOMES
from es2_lightning.reports.tables import DETAILS


@dataclass(frozen=True)
class Cell:
    """A figure as it is shown.

    Attributes:
        text: The figure, or words in its place.
        interval: Its 95 % interval.
        differs: Whether it surely differs from the base's.
        note: What else there is to say, in small print.
    """

    text: str = NOT_MEASURED
    interval: str = ""
    differs: bool = False
    note: str = ""


@dataclass(frozen=True)
class PageRow:
    """A line: its words, an explanation in small print, and its cells; none: a heading."""

    words: str
    cells: Sequence[Cell] = ()
    about: str = ""


@dataclass(frozen=True)
class PageTable:
    """A table of a page.

    Attributes:
        title: Its heading.
        columns: The headings of its columns, the first one's too.
        rows: Its lines.
        about: What it shows, as sentences.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[PageRow]
    about: str = ""


def headline_table(columns: Sequence[Column]) -> PageTable | None:
    """What decides: the attacker's budget, refusals, and what was kept."""
    rows = [
        ("at_base_budget_95", "Harmful answers recovered, small shifts only ↓", "percent",
         "with the largest shift of the hidden states at which the base model yields 95 % of what "
         "it yields at all"),
        ("half_yield_budget", "Shift that recovers half of the harmful answers ↑", "number",
         "relative to the mean length of the layer's states"),
        ("half_yield_ratio", "— the same, as a multiple of the base’s ↑", "times", ""),
    ]  # fmt: skip
    found = [
        _row(columns, WORST, f"{AXIS}_{metric}", words, unit, about)  # type: ignore[arg-type]
        for metric, words, unit, about in rows
    ]
    others: list[tuple[str, str, str, Unit, str]] = [
        (WORST, "recovered", "Harmful answers recovered, any shift ↓", "percent",
         "an attacker without a budget"),
        ("direct", "refused", "Harmful requests refused in plain words ↑", "percent",
         "asked directly, without an attack"),
        ("direct", "collapsed", "Harmful requests met with gibberish ↓", "percent",
         "neither a refusal nor an answer"),
        ("direct", "harmless_answered", "Harmless requests answered ↑", "percent", ""),
        ("direct", "looks_harmful_refused", "Refused, though it only looks harmful ↓", "percent",
         "over-refusal"),
        ("direct", "general_answered", "General tasks answered ↑", "percent", ""),
        ("direct", "harmless_kl_to_base", "Drift on harmless requests (KL, nats) ↓", "number",
         "how far the next-token distribution moved from the base model’s"),
    ]  # fmt: skip
    found += [_row(columns, attack, metric, words, unit, about)
              for attack, metric, words, unit, about in others]  # fmt: skip
    return _table("Before and after", "", columns, [row for row in found if row])


def attacks_table(columns: Sequence[Column]) -> PageTable | None:
    """A line for each attack and judge: how many harmful answers it got out."""
    shown = list(dict.fromkeys(s for c in columns for s in shown_attacks(c.comparison)))
    judges = list(dict.fromkeys(judge for c in columns for judge in c.measured.judges))
    rows = []
    for attack in shown:
        name = f"{attack.attack}, {attack.variant}" if attack.variant else attack.attack
        for judge in judges:
            words = name if len(judges) == 1 else f"{name}, judged by {judge}"
            about = "its best single configuration" if attack.variant == "best" else ""
            about = about or ATTACKS.get(attack.attack, "")
            rows.append(PageRow(words, [_attacked(c, attack, judge) for c in columns], about))
    return _table("Harmful answers by attack", "percent of harmful requests ↓", columns, rows)


def harmless_table(columns: Sequence[Column]) -> PageTable | None:
    """Over-refusal: what became of requests that are not harmful."""
    judges = list(dict.fromkeys(judge for c in columns for judge in c.measured.judges))
    rows = []
    for kind, words in KINDS.items():
        for metric, arrow in (("answered", "↑"), ("refused", "↓")):
            for judge in judges:
                said = f"{words}: {metric} {arrow}"
                said += f", judged by {judge}" if len(judges) > 1 else ""
                row = _row(columns, "direct", f"{kind}_{metric}", said, "percent", judge=judge)
                rows += [row] if row else []
    return _table("Requests that are not harmful", "percent, without an attack", columns, rows)


def detail_tables(columns: Sequence[Column]) -> list[PageTable]:
    """Capability, drift, budgets and shifts."""
    tables = []
    for title, lines_of in DETAILS:
        rows: dict[tuple[str, str, str] | str, PageRow] = {}
        for column in columns:
            for line in lines_of(column.comparison):
                if line.row is None:
                    rows.setdefault(line.words, PageRow(line.words.strip()))
                    continue
                key = line.row.attack, line.row.metric, line.row.judge
                if key not in rows:
                    rows[key] = PageRow(line.words.strip(), _cells(columns, *key, unit=line.unit))
        table = _table(title, "", columns, list(rows.values()))
        tables += [table] if table else []
    return tables


def shown(estimate: Estimate | None, unit: Unit = "percent") -> Cell:
    """A figure with its interval apart."""
    value, _, interval = cell(estimate, unit).partition(" [")
    percent = "\u00a0%" if unit == "percent" and value != NOT_MEASURED else ""
    return Cell(value + percent, interval.removesuffix("]"))


def differs(row: Row | None) -> bool:
    """Whether the tuned model's figure surely differs from the base's, by the paired test."""
    return row is not None and row.p_value is not None and row.p_value < ALPHA


def _table(
    title: str, first: str, columns: Sequence[Column], rows: Sequence[PageRow]
) -> PageTable | None:
    if not any(row.cells for row in rows):
        return None
    return PageTable(title, [first, *(column.label for column in columns)], rows)


def _row(
    columns: Sequence[Column],
    attack: str,
    metric: str,
    words: str,
    unit: Unit,
    about: str = "",
    *,
    judge: str | None = None,
) -> PageRow | None:
    cells = _cells(columns, attack, metric, judge, unit=unit)
    return PageRow(words, cells, about) if any(c.text != NOT_MEASURED for c in cells) else None


def _cells(
    columns: Sequence[Column], attack: str, metric: str, judge: str | None = None, *, unit: Unit
) -> list[Cell]:
    return [_cell(columns, column, attack, metric, judge, unit) for column in columns]


def _cell(
    columns: Sequence[Column],
    column: Column,
    attack: str,
    metric: str,
    judge: str | None,
    unit: Unit,
) -> Cell:
    row = column.row(attack, metric, judge)
    found = shown(column.estimate(attack, metric, judge), unit)
    base = columns[0].estimate(attack, metric, judge)
    note = ""
    if column.place == 1 and row and row.base and base and not _alike(row.base, base):
        # Runs of other seeds were measured on other prompts.
        note = f"its base: {shown(row.base, unit).text}"
    return Cell(found.text, found.interval, column.place == 1 and differs(row), note)


def _alike(a: Estimate, b: Estimate) -> bool:
    return math.isclose(a.value, b.value, rel_tol=1e-6) or (a.value == b.value)


def _attacked(column: Column, shown_attack: Shown, judge: str) -> Cell:
    made = column.measured.attacks.get(shown_attack.attack)
    if made is None:
        return Cell()
    if made.not_possible:
        return Cell("not possible", note=made.not_possible)
    row = column.row(shown_attack.name, "recovered", judge)
    found = shown(column.estimate(shown_attack.name, "recovered", judge))
    others = ", ".join(_others(column, shown_attack, judge))
    if column.place == 1 and not column.comparison.effective.get(shown_attack.name, True):
        return Cell(NOT_EFFECTIVE, note=f"recovered {found.text}, {others}")
    return Cell(found.text, found.interval, column.place == 1 and differs(row), others)


def _others(column: Column, attack: Shown, judge: str) -> Iterator[str]:
    for metric, words in OUTCOMES.items():
        share = column.estimate(attack.name, metric, judge)
        if share is not None and (metric != "undecided" or share.value > 0):
            yield f"{words} {figure(share.value)}"
