"""Distances between and within groups of hidden states (ES2, arXiv 2603.20206, section 4).

Shape legend: N harmful prompts, M harmless prompts, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pairwise_distances(harmful_ND: Tensor, harmless_MD: Tensor) -> Tensor:
    """Un-squared Euclidean distance of every pair, (N, M), float32 or better.

    Taken from the differences themselves: `torch.cdist` above 25 rows goes through a matrix
    product, which loses 3 % to a single large activation. The gradient at distance 0 is 0.
    """
    harmful, harmless = _at_least_float32(harmful_ND), _at_least_float32(harmless_MD)
    return torch.linalg.vector_norm(harmful[:, None] - harmless[None], dim=-1)


def mean_pairwise_distance(harmful_ND: Tensor, harmless_MD: Tensor) -> Tensor:
    """The mean over all N · M pairs; -1 times this is the paper's L_dist. A scalar."""
    return pairwise_distances(harmful_ND, harmless_MD).mean()


def mean_distance_within(states_ND: Tensor) -> Tensor:
    """The mean distance of two different states of one group, 0 for fewer than two. A scalar."""
    states = _at_least_float32(states_ND)
    if len(states) < 2:
        return states.new_zeros(())
    return torch.pdist(states).mean()


def mean_norm(states_ND: Tensor) -> Tensor:
    """The mean Euclidean norm of the states. A scalar."""
    return torch.linalg.vector_norm(_at_least_float32(states_ND), dim=-1).mean()


def _at_least_float32(states: Tensor) -> Tensor:
    return states if states.dtype == torch.float64 else states.float()
