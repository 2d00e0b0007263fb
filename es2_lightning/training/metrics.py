"""What is logged of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from es2_lightning.objectives.separation import (
    mean_distance_within,
    mean_norm,
    mean_pairwise_distance,
)
from es2_lightning.training.objective import Losses


@torch.no_grad()
def batch_metrics(losses: Losses) -> dict[str, Tensor]:
    """The figures of a batch by name; scalars.

    Returns:
        `loss`, `kl`, `separation` (in the configured unit, over the stage's layers); `harmful_kl`
        where a harmful prompt has a refusal; and for each layer of the layer set, whether it is
        separated now or not, `layer_<l>/` with distances between and within the two groups, the
        former also relative to the mean state norm, and both mean norms.
    """
    metrics = {
        "loss": losses.loss,
        "kl": losses.kl,
        "separation": torch.stack(list(losses.distances.values())).mean(),
    }
    if losses.refused:
        metrics["harmful_kl"] = losses.harmful_kl
    for layer, harmful in losses.harmful_states.items():
        harmless = losses.harmless_states[layer]
        norm_harmful, norm_harmless = mean_norm(harmful), mean_norm(harmless)
        distance = mean_pairwise_distance(harmful, harmless)
        metrics |= {
            f"layer_{layer}/distance": distance,
            f"layer_{layer}/distance_relative": distance / ((norm_harmful + norm_harmless) / 2),
            f"layer_{layer}/distance_within_harmful": mean_distance_within(harmful),
            f"layer_{layer}/distance_within_harmless": mean_distance_within(harmless),
            f"layer_{layer}/norm_harmful": norm_harmful,
            f"layer_{layer}/norm_harmless": norm_harmless,
        }
    return metrics
