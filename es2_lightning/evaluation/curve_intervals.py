"""How sure a budget curve's figures are: percentile bootstrap over prompts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from es2_lightning.evaluation.attacks.budget_curve import BudgetCurve
from es2_lightning.evaluation.intervals import Estimate


def resampled(curve: BudgetCurve, figure: Callable[[BudgetCurve], float]) -> Estimate:
    """A figure of the curve, such as its half-yield budget; its interval may reach to inf."""
    n = len(curve.needed)
    values = [figure(_take(curve, picks)) for picks in _draws(n)]
    return _percentiles(figure(curve), values, n)


def half_yield_ratio(before: BudgetCurve, after: BudgetCurve) -> Estimate:
    """The half-yield budget after over the one before, both resampled on the same prompts."""
    n = len(before.needed)
    pairs = [
        (_take(before, picks).half_yield, _take(after, picks).half_yield) for picks in _draws(n)
    ]
    values = [b / a for a, b in pairs if 0 < a < math.inf]
    return _percentiles(after.half_yield / before.half_yield, values, n)


def _draws(n: int, *, draws: int = 400, seed: int = 0) -> Iterator[np.ndarray]:
    yield from np.random.default_rng(seed).integers(n, size=(draws, n))


def _take(curve: BudgetCurve, picks: np.ndarray) -> BudgetCurve:
    return BudgetCurve(
        budgets=curve.budgets,
        needed=tuple(curve.needed[i] for i in picks),
        unlimited=tuple(curve.unlimited[i] for i in picks),
    )


def _percentiles(value: float, values: Sequence[float], n: int) -> Estimate:
    if not values:
        return Estimate(value, math.nan, math.nan, n)
    # Without interpolation, since some of the values may be infinite.
    low, high = np.quantile(values, [0.025, 0.975], method="inverted_cdf")
    return Estimate(value, float(low), float(high), n)
