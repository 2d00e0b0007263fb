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
        What `es2_lightning.logged_keys` tells of a batch; `harmful_kl` where a harmful prompt has a
        refusal, and `layer_<l>/` for each layer that was read, whether it is separated now or not.
    """
    metrics = {
        "loss": losses.loss,
        "kl": losses.kl,
        "separation": torch.stack(list(losses.distances.values())).mean(),
    }
    if losses.refused:
        metrics["harmful_kl"] = losses.harmful_kl
    for layer, harmful in losses.harmful_states.items():
        metrics |= {
            f"layer_{layer}/{name}": value
            for name, value in _layer_metrics(harmful, losses.harmless_states[layer]).items()
        }
    relative = [metrics[f"layer_{layer}/distance_relative"] for layer in losses.distances]
    metrics["separation_relative"] = torch.stack(relative).mean()
    return metrics


def _layer_metrics(harmful_ND: Tensor, harmless_MD: Tensor) -> dict[str, Tensor]:
    norm_harmful, norm_harmless = mean_norm(harmful_ND), mean_norm(harmless_MD)
    norm = (norm_harmful + norm_harmless) / 2
    distances = {
        "distance": mean_pairwise_distance(harmful_ND, harmless_MD),
        "distance_within_harmful": mean_distance_within(harmful_ND),
        "distance_within_harmless": mean_distance_within(harmless_MD),
    }
    relative = {f"{name}_relative": value / norm for name, value in distances.items()}
    return {**distances, **relative, "norm_harmful": norm_harmful, "norm_harmless": norm_harmless}
