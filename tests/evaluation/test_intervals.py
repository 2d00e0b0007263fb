"""Intervals and paired tests against published and independent figures."""

from __future__ import annotations

import math

import pytest
from scipy.stats import binomtest

from es2_lightning.evaluation.intervals import mcnemar, mean, rate


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (81, 263), (50, 50)])
def test_wilson_equals_scipy(hits: int, n: int) -> None:
    estimate = rate([True] * hits + [False] * (n - hits))
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))
    assert estimate.low <= estimate.value <= estimate.high
    assert estimate.value == hits / n


def test_nothing_to_count_is_nan() -> None:
    assert math.isnan(rate([]).value) and rate([]).n == 0
    assert math.isnan(mean([]).value)


def test_mcnemar_looks_at_changed_prompts_only() -> None:
    before = [True] * 9 + [False] + [True] * 50
    after = [False] * 9 + [True] + [True] * 50
    assert mcnemar(before, after) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(before, before) == 1.0
    with pytest.raises(ValueError):
        mcnemar([True], [])


def test_bootstrap_brackets_the_mean_and_repeats_itself() -> None:
    values = [float(i % 7) for i in range(100)]
    estimate = mean(values)
    assert estimate.low < estimate.value < estimate.high
    assert estimate.value == pytest.approx(sum(values) / 100)
    assert estimate == mean(values)
