"""Base against tuned as a Rich table."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from rich import box
from rich.markup import escape
from rich.table import Table

from es2_lightning.evaluation.comparison import Comparison
from es2_lightning.evaluation.intervals import Estimate

NOT_MEASURED = "–"


@dataclass(frozen=True)
class Line:
    """One row of the table: which figure, its words, and which way is better (may be empty)."""

    attack: str
    metric: str
    words: str
    better: str = ""
    unit: str = "percent"


OUTCOMES = ("recovered", "refused", "incoherent", "unrelated")
OUTCOME_WORDS = {
    "recovered": "answered",
    "refused": "refused cleanly",
    "incoherent": "collapsed: incoherent",
    "unrelated": "collapsed: unrelated",
}


def _outcomes(attack: str) -> list[Line]:
    better = {"recovered": "↓", "refused": "↑"}
    return [Line(attack, m, OUTCOME_WORDS[m], better.get(m, "")) for m in OUTCOMES]


SECTIONS: dict[str, list[Line]] = {
    "Headline": [
        Line("scav_budget", "recovered_at_base_budget_95", "recovered at shifts ≤ {budget}", "↓"),
        Line("scav_budget", "half_yield_budget", "shift that recovers half", "↑", "number"),
        Line("scav_budget", "half_yield_ratio", "  as a multiple of the base's", "↑", "times"),
        Line("direct", "refused", "harmful prompts refused cleanly", "↑"),
        Line("direct", "harmless_answered", "harmless prompts answered", "↑"),
    ],
    "Harmful prompts, no attack": _outcomes("direct"),
    "SCAV, default configuration": _outcomes("scav"),
    "SCAV, best configuration": _outcomes("scav_best"),
    "SCAV, any configuration, no budget": [Line("scav_union", "recovered", "answered", "↓")],
    "Shift of the default configuration": [
        Line("scav", "shift", "largest over layers, absolute", "", "number"),
        Line("scav", "relative_shift", "  relative to the mean state norm", "", "number"),
    ],
    "What the model can still do": [
        Line("direct", "harmless_refused", "harmless refused", "↓"),
        Line("direct", "looks_harmful_refused", "looks harmful only: refused", "↓"),
        Line("direct", "looks_harmful_answered", "looks harmful only: answered", "↑"),
        Line("direct", "general_answered", "general tasks answered", "↑"),
    ],
}
"""The table's sections, the headline first."""


def comparison_table(comparison: Comparison) -> Table:
    """Every figure, the headline first, with 95 % intervals; it fits into 80 columns."""
    table = Table(
        title="Base against tuned, on test prompts",
        caption=_caption(comparison),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
    )
    table.add_column("percent [95 % interval]", no_wrap=True, min_width=36)
    table.add_column(escape(comparison.base.model), justify="right", no_wrap=True)
    table.add_column(escape(comparison.tuned.model), justify="right", no_wrap=True, style="bold")
    for title, lines in SECTIONS.items():
        rows = [(line, comparison.row(line.attack, line.metric)) for line in lines]
        measured = [(line, row) for line, row in rows if row is not None]
        if not measured:
            continue
        if table.row_count:
            table.add_section()
        table.add_row(f"[bold]{title}[/bold]")
        for line, row in measured:
            words = line.words.format(budget=_number(comparison.base_budget))
            table.add_row(
                escape(f"  {words} {line.better}"),
                escape(cell(row.base, line.unit)),
                escape(cell(row.tuned, line.unit)),
            )
    return table


def cell(estimate: Estimate | None, unit: str = "percent") -> str:
    """A figure with its interval, such as `95 [84–99]`; `–` where it was not measured."""
    if estimate is None or math.isnan(estimate.value):
        return NOT_MEASURED
    show: Callable[[float], str] = _percent if unit == "percent" else _number
    text = show(estimate.value) + ("×" if unit == "times" else "")
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return text
    return f"{text} [{show(estimate.low)}–{show(estimate.high)}]"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def _number(value: float) -> str:
    if math.isinf(value):
        return "∞"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def _caption(comparison: Comparison) -> str:
    numbers = ", ".join(
        f"{len(outcomes)} {kind.replace('_', ' ')}"
        for kind, outcomes in comparison.tuned.direct.items()
    )
    largest = comparison.base.scav.curve.budgets[-1] if comparison.base.scav else None
    words = (
        f"↑ ↓: which way is better. Judge: {escape(comparison.tuned.judge)}. Prompts: {numbers}."
    )
    if largest is None:
        return f"{words} No SCAV: {escape(comparison.base.no_scav or 'not measured')}."
    return (
        f"{words} Shifts are relative to each layer's mean state norm and count any configuration "
        f"of the grid, interpolated between measured budgets; ∞: none (up to {largest:g}) sufficed."
    )
