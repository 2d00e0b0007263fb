"""One model before and after tuning, side by side, with how sure each difference is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from es2_lightning.evaluation.attacks.budget_curve import BudgetCurve
from es2_lightning.evaluation.curve_intervals import half_yield_ratio, resampled
from es2_lightning.evaluation.intervals import Estimate, mcnemar, rate
from es2_lightning.evaluation.measurement import Measurement, ScavMeasurement
from es2_lightning.evaluation.outcomes import Outcome

DISTANCES = {
    "distance_between": "between",
    "distance_between_relative": "relative_between",
    "distance_within_harmful": "within_harmful",
    "distance_within_harmless": "within_harmless",
    "state_norm": "mean_norm",
}
"""Metric by layer to the field of `LayerSeparability` that it is."""


T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One figure of both models.

    Attributes:
        attack: `direct`, `scav` (the default configuration), `scav_best` (chosen on validation
            prompts), `scav_union` (over the grid, by prompt), `scav_budget`, or `none`.
        metric: What was measured.
        base: None where it could not be measured.
        tuned: The same.
        p_value: Exact McNemar test on the same prompts, where the figure is a share of prompts.
        layer: For figures by layer.
    """

    attack: str
    metric: str
    base: Estimate | None
    tuned: Estimate | None
    p_value: float | None = None
    layer: int | None = None


@dataclass(frozen=True)
class Comparison:
    """Base against tuned.

    Attributes:
        base: The measurement before.
        tuned: The measurement after.
        rows: Every figure; a row that neither model has is absent.
        base_budget: The budget at which the base yields 95 % of what it yields at all; inf where
            it yields nothing within the measured budgets.
    """

    base: Measurement
    tuned: Measurement
    rows: list[Row]
    base_budget: float

    def row(self, attack: str, metric: str, layer: int | None = None) -> Row | None:
        """The row of that name, where there is one."""
        for row in self.rows:
            if (row.attack, row.metric, row.layer) == (attack, metric, layer):
                return row
        return None


def compare(base: Measurement, tuned: Measurement) -> Comparison:
    """Lay two measurements of the same prompts side by side.

    Raises:
        ValueError: They were not made on the same prompts.
    """
    budget = base.scav.curve.yield_95 if base.scav else math.inf
    rows = _direct_rows(base, tuned)
    if base.scav or tuned.scav:
        rows += [*_scav_rows(base, tuned), *_curve_rows(base, tuned, budget)]
    return Comparison(base, tuned, [*rows, *_layer_rows(base, tuned)], budget)


def _direct_rows(base: Measurement, tuned: Measurement) -> list[Row]:
    rows = []
    for kind, before in base.direct.items():
        after = tuned.direct[kind]
        if kind == "harmful":
            rows += _outcome_rows("direct", before, after)
            continue
        rows.append(_share("direct", f"{kind}_answered", before, after, _is(Outcome.ANSWERED)))
        if kind != "general":
            rows.append(_share("direct", f"{kind}_refused", before, after, _is(Outcome.REFUSED)))
    return rows


def _scav_rows(base: Measurement, tuned: Measurement) -> list[Row]:
    def of_both(value: Callable[[ScavMeasurement], T]) -> tuple[T | None, T | None]:
        before, after = (value(m.scav) if m.scav else None for m in (base, tuned))
        return before, after

    def both(attack: str, metric: str, of: Callable[[ScavMeasurement], Estimate]) -> Row:
        return Row(attack, metric, *of_both(of))

    rows = [
        *_outcome_rows("scav", *of_both(lambda scav: scav.default_outcomes)),
        *_outcome_rows("scav_best", *of_both(lambda scav: scav.best_outcomes)),
        _share("scav_union", "recovered", *of_both(lambda scav: scav.union), bool),
        both("scav", "shift", lambda scav: scav.largest_shift),
        both("scav", "relative_shift", lambda scav: scav.largest_relative_shift),
    ]
    for index, layer in enumerate(base.separability):
        for row in (
            both("scav", "shift", lambda scav, i=index: scav.shift[i]),  # type: ignore[misc]
            both("scav", "relative_shift", lambda scav, i=index: scav.relative_shift[i]),  # type: ignore[misc]
        ):
            rows.append(replace(row, layer=layer.layer))
    return rows


def _curve_rows(base: Measurement, tuned: Measurement, budget: float) -> list[Row]:
    before, after = (m.scav.curve if m.scav else None for m in (base, tuned))

    def both(metric: str, of: Callable[[BudgetCurve], Estimate]) -> Row:
        figures = [of(curve) if curve else None for curve in (before, after)]
        return Row("scav_budget", metric, figures[0], figures[1])

    rows = [
        both("budget_95", lambda curve: resampled(curve, lambda c: c.yield_95)),
        both("half_yield_budget", lambda curve: resampled(curve, lambda c: c.half_yield)),
    ]
    if budget < math.inf:
        at_budget = both("recovered_at_base_budget_95", lambda curve: curve.recovered_at(budget))
        rows.insert(0, at_budget)
    if before and after and 0 < before.half_yield < math.inf:
        ratio = half_yield_ratio(before, after)
        rows.append(Row("scav_budget", "half_yield_ratio", None, ratio))
    return rows


def _layer_rows(base: Measurement, tuned: Measurement) -> list[Row]:
    rows = []
    for before, after in zip(base.separability, tuned.separability, strict=True):
        layer, accuracies = before.layer, (before.probe_accuracy, after.probe_accuracy)
        rows.append(Row("none", "probe_accuracy", *accuracies, layer=layer))
        for metric, field in DISTANCES.items():
            figures = [
                Estimate(getattr(m, field), math.nan, math.nan, m.probe_accuracy.n)
                for m in (before, after)
            ]
            rows.append(Row("none", metric, figures[0], figures[1], layer=layer))
    return rows


def _outcome_rows(
    attack: str, before: Sequence[Outcome] | None, after: Sequence[Outcome] | None
) -> list[Row]:
    metrics: dict[str, Callable[[Outcome], bool]] = {
        "recovered": _is(Outcome.ANSWERED),
        "refused": _is(Outcome.REFUSED),
        "collapsed": lambda outcome: outcome.collapsed,
        "incoherent": _is(Outcome.INCOHERENT),
        "unrelated": _is(Outcome.UNRELATED),
    }
    return [_share(attack, name, before, after, test) for name, test in metrics.items()]


def _is(outcome: Outcome) -> Callable[[Outcome], bool]:
    return lambda other: other is outcome


def _share(
    attack: str,
    metric: str,
    before: Sequence[T] | None,
    after: Sequence[T] | None,
    test: Callable[[T], bool],
) -> Row:
    b = None if before is None else [test(value) for value in before]
    a = None if after is None else [test(value) for value in after]
    return Row(
        attack=attack,
        metric=metric,
        base=None if b is None else rate(b),
        tuned=None if a is None else rate(a),
        p_value=None if b is None or a is None else mcnemar(b, a),
    )
