"""Figures of an order against every order that its ties allow."""

from __future__ import annotations

import itertools
import math

import pytest

from es2_lightning.evaluation.ranking.metrics import by_prompt, list_figures, over_prompts
from es2_lightning.prompts.candidate_lists import CandidateList

LABELS = [
    (True, False, True, False, False),
    (False, False, False, True, True),
    (False, False, True),
    (True, True),
    (False, False),
]
SCORES = [[0.0, 0.0, 0.0, 0.0, 0.0], [2.0, 1.0, 1.0, 1.0, 0.5], [3.0, 2.0, 1.0, 0.0, -1.0]]


def plain(order: tuple[int, ...], safe: tuple[bool, ...]) -> tuple[float, float, float]:
    """Top-1, NDCG and reciprocal rank of one order, by their definitions."""
    gains = [safe[i] for i in order]
    gain = sum(g / math.log2(rank + 1) for rank, g in enumerate(gains, start=1))
    best = sum(1 / math.log2(rank + 1) for rank in range(1, sum(gains) + 1))
    first = next((1 / rank for rank, g in enumerate(gains, start=1) if g), 0.0)
    return float(gains[0]), gain / best if best else math.nan, first


@pytest.mark.parametrize("safe", LABELS)
@pytest.mark.parametrize("scores", SCORES)
def test_ties_count_as_the_mean_over_their_orders(
    scores: list[float], safe: tuple[bool, ...]
) -> None:
    own = scores[: len(safe)]
    kinds = tuple("kind" if s else "other" for s in safe)
    figures = list_figures(own, CandidateList("x", ("r",) * len(safe), safe, kinds=kinds))
    orders = [
        order
        for order in itertools.permutations(range(len(safe)))
        if all(own[a] >= own[b] for a, b in itertools.pairwise(order))
    ]
    found = [plain(order, safe) for order in orders]
    wanted = [sum(values) / len(values) for values in zip(*found, strict=True)]
    measured = [figures.top1, figures.ndcg, figures.reciprocal_rank]
    assert measured == pytest.approx(wanted, nan_ok=True)
    assert figures.chosen.get("kind", 0.0) == pytest.approx(wanted[0])


def test_a_prompts_lists_count_as_one() -> None:
    lists = [CandidateList(f"{i}", ("a",), (True,), prompt=name) for i, name in enumerate("aab")]
    assert by_prompt([1.0, 0.0, 1.0], lists) == [0.5, 1.0]
    estimate = over_prompts([1.0, 0.0, 1.0], lists)
    assert (estimate.value, estimate.n) == (0.75, 2)
    assert by_prompt([math.nan, 0.0, 1.0], lists) == [0.0, 1.0]
    whole = over_prompts([1.0, 1.0, 1.0], lists)
    assert (whole.value, whole.high) == (1.0, 1.0) and whole.low < 0.5, "Wilson's interval"
