"""Ranking losses over padded lists of scores and labels.

Shape legend: N lists, M responses of the longest list. Each function takes scores (N, M), labels
(N, M) with numbers ≥ 0, more being better, and which responses are present (N, M) bool; it returns
a loss for each list (N,), 0 where a list has nothing to say. What is not present has no part in it,
whatever its score.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from es2_lightning.objectives.ranking_names import RankingObjective


def listnet_loss(scores_NM: Tensor, labels_NM: Tensor, present_NM: Tensor) -> Tensor:
    """KL(labels / their sum ‖ softmax(scores)), in nats (SRR, arXiv 2505.15710; ListNet).

    A list whose labels are all 0 asks for nothing.
    """
    labels_NM = labels_NM.masked_fill(~present_NM, 0.0)
    total_N1 = labels_NM.sum(1, keepdim=True)
    target_NM = labels_NM / torch.where(total_N1 > 0, total_N1, 1.0)
    log_softmax_NM = scores_NM.masked_fill(~present_NM, -torch.inf).log_softmax(1)
    # 0 · -inf is nan, in the gradient too.
    log_softmax_NM = torch.where(target_NM > 0, log_softmax_NM, 0.0)
    return (torch.xlogy(target_NM, target_NM) - target_NM * log_softmax_NM).sum(1)


def pairwise_logistic_loss(scores_NM: Tensor, labels_NM: Tensor, present_NM: Tensor) -> Tensor:
    """Mean of log(1 + exp(worse - better)) over the pairs of a list whose labels differ
    (RankNet)."""
    scores_NM = scores_NM.masked_fill(~present_NM, 0.0)
    both_NMM = present_NM[:, :, None] & present_NM[:, None, :]
    pairs_NMM = both_NMM & (labels_NM[:, :, None] > labels_NM[:, None, :])
    losses_NMM = F.softplus(scores_NM[:, None, :] - scores_NM[:, :, None])
    return (losses_NMM * pairs_NMM).sum((1, 2)) / pairs_NMM.sum((1, 2)).clamp(min=1)


def pointwise_loss(scores_NM: Tensor, labels_NM: Tensor, present_NM: Tensor) -> Tensor:
    """Mean binary cross-entropy of sigmoid(score) with whether the label is above 0."""
    scores_NM = scores_NM.masked_fill(~present_NM, 0.0)
    losses_NM = F.binary_cross_entropy_with_logits(
        scores_NM, (labels_NM > 0).to(scores_NM), reduction="none"
    )
    return (losses_NM * present_NM).sum(1) / present_NM.sum(1).clamp(min=1)


RANKING_LOSSES: dict[RankingObjective, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "listnet": listnet_loss,
    "pairwise": pairwise_logistic_loss,
    "pointwise": pointwise_loss,
}
