"""The two losses of circuit breakers (Zou et al. 2024, arXiv 2406.04313, Algorithm 1).

Shape legend: P positions, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def rerouting(tuned_PD: Tensor, base_PD: Tensor) -> Tensor:
    """ReLU(cos(h_base, h_θ)) of each position, (P,): 0 once the state stands orthogonal."""
    return F.cosine_similarity(_precise(tuned_PD), _precise(base_PD), dim=-1).relu()


def retention(tuned_PD: Tensor, base_PD: Tensor) -> Tensor:
    """‖h_θ − h_base‖₂ of each position, (P,), un-squared; its gradient where they agree is 0."""
    return torch.linalg.vector_norm(_precise(tuned_PD) - _precise(base_PD), dim=-1)


def weights(alpha: float, progress: float) -> tuple[float, float]:
    """What rerouting and retention are multiplied with: alpha·(1 − t/2T) and alpha·t/2T.

    Args:
        alpha: The scale of both; 5 to 10 in the paper.
        progress: t/T, the share of the steps that are done.
    """
    return alpha * (1 - progress / 2), alpha * progress / 2


def _precise(states: Tensor) -> Tensor:
    return states if states.dtype == torch.float64 else states.float()
