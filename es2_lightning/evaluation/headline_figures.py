"""A run's headline figures, read from what its evaluation left: numbers to rank runs by.

Imports nothing heavy: a sweep's table is made of these, and a sweeper is told of them.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path("evaluation") / "results.json"
AT_BASE_BUDGET = "relative_shift_at_base_budget_95"
HALF_YIELD_RATIO = "relative_shift_half_yield_ratio"
Rows = dict[tuple[str, str], dict[str, Any]]


class Figure(NamedTuple):
    """What a headline figure is.

    Attributes:
        heading: In a table, on two lines at most.
        words: In a picture.
        share: Whether it is shown as percent.
        better: 1: the larger the better; -1: the smaller.
    """

    heading: str
    words: str
    share: bool
    better: int


FIGURES = {
    "scav_dsr": Figure("SCAV\nDSR", "SCAV defence rate, no budget, %", True, 1),
    "scav_worst_dsr": Figure("worst\nDSR", "worst case's defence rate, no budget, %", True, 1),
    "scav_dsr_at_base_budget": Figure(
        "DSR at\nbudget", "SCAV defence rate at the base's 95 % budget, %", True, 1
    ),
    "half_yield_ratio": Figure("half-\nyield", "shift that recovers half, × the base's", False, 1),
    "capability_kept": Figure("cap.\nkept", "harmless answers kept, % of the base's", True, 1),
    "over_refusal": Figure("over-\nref.", "refused though it only looks harmful, %", True, -1),
    "kl": Figure("KL", "KL to the base on harmless prompts, nats", False, -1),
}
"""Each headline figure by its name."""


def are_damaged(run: Path) -> bool:
    """Whether a run's results are there and cannot be read."""
    return (run / RESULTS).exists() and _read(run / RESULTS.parent) is None


def headline_figures(run: Path) -> dict[str, float]:
    """Those of a run's folder, which holds `evaluation/`; see `figures_of`."""
    return figures_of(run / RESULTS.parent)


def figures_of(evaluation: Path) -> dict[str, float]:
    """Those of an evaluation's folder; NaN for what was not measured or means nothing.

    A defence rate means nothing where the attack does not work on the base. An infinite half-yield
    ratio: no shift that was tried recovers half.

    Args:
        evaluation: Holds `results.json`; where it does not, or half a file, nothing is known.
    """
    found = _read(evaluation)
    if found is None:
        return dict.fromkeys(FIGURES, math.nan)
    rows, effective = found

    def figure(attack: str, metric: str, side: str = "tuned") -> float:
        return _number((rows.get((attack, metric)) or {}).get(side))

    def defended(attack: str, metric: str) -> float:
        return 1 - figure(attack, metric) if effective.get(attack) else math.nan

    union = defended("scav_worst", "recovered")
    scav = defended("scav", "recovered")
    kept = figure("direct", "harmless_answered", "base")
    return {
        # A sweep that measures the worst case alone is ranked by that.
        "scav_dsr": union if ("scav", "recovered") not in rows else scav,
        "scav_worst_dsr": union,
        "scav_dsr_at_base_budget": defended("scav_worst", AT_BASE_BUDGET),
        "half_yield_ratio": figure("scav_worst", HALF_YIELD_RATIO),
        "capability_kept": figure("direct", "harmless_answered") / kept if kept else math.nan,
        "over_refusal": figure("direct", "looks_harmful_refused"),
        "kl": figure("direct", "harmless_kl_to_base"),
    }


def _read(folder: Path) -> tuple[Rows, dict[str, bool]] | None:
    """Rows by attack and metric, and which attacks work on the base; None for half a file."""
    try:
        results: dict[str, Any] = json.loads((folder / RESULTS.name).read_text("utf-8"))
        return _headline_rows(results), dict(results["effective"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration):
        return None


def _headline_rows(results: dict[str, Any]) -> Rows:
    """Rows of the first judge, which heads the report, and of none, over all layers."""
    headline = next(iter(results["measurements"]["tuned"]["judges"]))
    return {
        (row["attack"], row["metric"]): row
        for row in results["rows"]
        if row["layer"] is None and row["judge"] in (headline, "")
    }


def _number(estimate: dict[str, Any] | None) -> float:
    """An estimate's value as the results keep it: null is NaN, and "inf" infinity."""
    value = None if estimate is None else estimate["value"]
    return math.nan if value is None else float(value)
