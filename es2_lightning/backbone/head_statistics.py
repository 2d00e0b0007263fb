"""What a KL from a frozen distribution needs of it, when both share a frozen linear head.

KL(p ‖ q) = Σ p log p − Σ p z + logsumexp z with logits z = W h + b: of p only Σ p log p − p·b and
Wᵀp are needed, D + 1 numbers, and never its logits again.

Shape legend: P positions, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from es2_lightning.backbone.head_products import (
    chunks,
    combined,
    multiplies_bf16,
    row_blocks,
    scores,
    wide_dtype,
    without_autocast,
)
from es2_lightning.backbone.linear_head import LinearHead
from es2_lightning.errors import UserError


@dataclass(frozen=True)
class HeadStatistics:
    """Of P next-token distributions, without gradients.

    Attributes:
        negative_entropy_P: Σ p log p, in nats, less p·b where the head has a bias; float64.
        expected_weight_PD: Wᵀp, float32 (float64 for float64 states); like p·b times the head's
            scale.
    """

    negative_entropy_P: Tensor
    expected_weight_PD: Tensor

    def __len__(self) -> int:
        return len(self.negative_entropy_P)

    def select(self, index: Tensor) -> HeadStatistics:
        """Those of some positions.

        Args:
            index: Their numbers, long.
        """
        return HeadStatistics(
            self.negative_entropy_P.index_select(0, index),
            self.expected_weight_PD.index_select(0, index),
        )

    @staticmethod
    def cat(parts: Sequence[HeadStatistics]) -> HeadStatistics:
        """Those of several, one behind the other; at least one."""
        return HeadStatistics(
            torch.cat([part.negative_entropy_P for part in parts]),
            torch.cat([part.expected_weight_PD for part in parts]),
        )


def needs_statistics_head(head: LinearHead) -> None:
    """Refuse a head that statistics say too little for.

    Raises:
        UserError: It is soft-capped or trains.
    """
    if head.soft_cap is not None or head.trains:
        found = "soft-caps its logits" if head.soft_cap is not None else "trains"
        raise UserError(
            f"the model's head {found}: a KL from statistics holds for a frozen linear head only; "
            "model.reference_cache.hold=hidden_states holds for any"
        )


@torch.no_grad()
def head_statistics(
    base_PD: Tensor, head: LinearHead, *, chunk: int | None = 256
) -> HeadStatistics:
    """The statistics of the distributions that a head makes of hidden states.

    Two products with the head a position.

    Args:
        base_PD: What left the final norm.
        head: Frozen, without soft-capping.
        chunk: Positions at a time; None: all at once.

    Raises:
        UserError: The head is soft-capped or trains.
    """
    needs_statistics_head(head)
    fine = finest_dtype(base_PD)
    entropy_P = base_PD.new_empty(len(base_PD), dtype=fine)
    weight_PD = base_PD.new_empty(base_PD.shape, dtype=wide_dtype(base_PD))
    terms = 2 if multiplies_bf16(base_PD, head.weight_VD) else None
    with without_autocast(base_PD):
        for rows in chunks(len(base_PD), chunk):
            p = scores(base_PD[rows], head.weight_VD)
            add_bias_and_scale(p, head)
            total_C = softmax_(p)
            expected_CD = combined(p, head.weight_VD, bf16_terms=terms).mul_(head.scale)
            # From the numbers that are kept, so that their rounding cancels in a KL.
            entropy_P[rows] = (expected_CD.to(fine) * base_PD[rows].to(fine)).sum(-1) - total_C
            weight_PD[rows] = expected_CD
            del p  # Before the next chunk's.
    return HeadStatistics(entropy_P, weight_PD)


def add_bias_and_scale(scores_PV: Tensor, head: LinearHead) -> None:
    """Make logits of the products with the weight, in place."""
    if head.bias_V is not None:
        scores_PV += head.bias_V
    if head.scale != 1.0:
        scores_PV *= head.scale


def softmax_(logits_PV: Tensor) -> Tensor:
    """Make probabilities of logits, in place; their logsumexp, (P,), in the finest dtype."""
    total_P = logits_PV.new_empty(len(logits_PV), dtype=finest_dtype(logits_PV))
    for rows in row_blocks(logits_PV):
        top = logits_PV[rows].amax(-1, keepdim=True)
        sums = logits_PV[rows].sub_(top).exp_().sum(-1, keepdim=True)
        logits_PV[rows] /= sums
        total_P[rows] = (top.to(total_P.dtype) + sums.to(total_P.dtype).log()).squeeze(-1)
    return total_P


def finest_dtype(values: Tensor) -> torch.dtype:
    """What a few numbers that decide over last digits are worth: float64 where there is one."""
    return torch.float32 if values.device.type == "mps" else torch.float64
