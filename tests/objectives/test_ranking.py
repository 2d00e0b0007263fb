"""Ranking losses against their definitions, written out list by list in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from es2_lightning.objectives.ranking import RANKING_LOSSES
from es2_lightning.objectives.ranking_names import RANKING_OBJECTIVES, RankingObjective

LISTS = [
    ([0.3, -1.2, 2.0, 0.1], [1.0, 0.0, 0.0, 1.0]),
    ([5.0, -5.0], [0.0, 1.0]),
    ([0.5, 0.5, -0.5], [1.0, 0.5, 0.0]),
]


def by_definition(objective: str, scores: list[float], labels: list[float]) -> float:
    s, y = np.array(scores), np.array(labels)
    if objective == "listnet":
        target = y / y.sum()
        log_softmax = s - np.log(np.exp(s).sum())
        return sum(t * (math.log(t) - q) for t, q in zip(target, log_softmax, strict=True) if t)
    if objective == "pairwise":
        pairs = [(a, b) for a in range(len(s)) for b in range(len(s)) if y[a] > y[b]]
        return float(np.mean([math.log(1 + math.exp(s[b] - s[a])) for a, b in pairs]))
    p = 1 / (1 + np.exp(-s))
    return float(-np.mean(np.where(y > 0, np.log(p), np.log(1 - p))))


def padded(to: int, filling: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    scores, labels = torch.full((3, to), filling), torch.zeros(3, to)
    present = torch.zeros(3, to, dtype=torch.bool)
    for row, (s, y) in enumerate(LISTS):
        scores[row, : len(s)], labels[row, : len(s)] = torch.tensor(s), torch.tensor(y)
        present[row, : len(s)] = True
    return scores, labels, present


@pytest.mark.parametrize("objective", RANKING_OBJECTIVES)
@pytest.mark.parametrize("filling", [-math.inf, 3.0])
def test_losses_are_their_definitions(objective: RankingObjective, filling: float) -> None:
    expected = [by_definition(objective, *one) for one in LISTS]
    for width in (4, 7):
        scores, labels, present = padded(width, filling)
        scores.requires_grad_()
        losses = RANKING_LOSSES[objective](scores, labels, present)
        assert losses.tolist() == pytest.approx(expected, rel=1e-5)
        (gradient,) = torch.autograd.grad(losses.sum(), scores)
        assert torch.isfinite(gradient).all()
        assert (gradient[~present] == 0).all() and (gradient[present] != 0).all()


@pytest.mark.parametrize("objective", ["listnet", "pairwise"])
def test_a_list_without_a_better_response_asks_for_nothing(objective: RankingObjective) -> None:
    scores = torch.tensor([[1.0, -2.0]], requires_grad=True)
    loss = RANKING_LOSSES[objective](scores, torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool))
    loss.sum().backward()
    assert loss.item() == 0 and scores.grad is not None and (scores.grad == 0).all()
