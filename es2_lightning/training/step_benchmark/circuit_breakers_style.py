"""A training step in the manner of circuit breakers' published code (arXiv 2406.04313).

One copy of the model, whose adapter is switched off for the reference, and four full forwards over
padded rows: both models on both classes. The loss is ES2's, so that the figures compare: the
reference's states of harmful prompts, which circuit breakers' own loss needs, are computed and not
used.
"""

from __future__ import annotations

from typing import Any

import torch

from es2_lightning.training.step_benchmark.naive import (
    PaddedRows,
    PlainLosses,
    full_forward,
    last_block_states,
    last_token,
    mean_distance,
    padded_kl,
)


def circuit_breakers_style_step(
    policy: Any,
    harmless: PaddedRows,
    harmful: PaddedRows,
    layer: int,
    weights: tuple[float, float],
) -> PlainLosses:
    """Four full forwards; arguments as those of `naive_step`."""
    # peft switches requires_grad on for the whole adapter when this ends; all of it trains here.
    with policy.disable_adapter(), torch.no_grad():
        reference_logits = full_forward(policy, harmless).logits.float()
        full_forward(policy, harmful)
    with last_block_states(policy) as harmless_last:
        harmless_output = full_forward(policy, harmless)
    with last_block_states(policy) as harmful_last:
        harmful_output = full_forward(policy, harmful)
    kl = padded_kl(harmless_output.logits.float(), reference_logits, harmless.kl_mask)
    distance = mean_distance(
        last_token(harmful_output.hidden_states, harmful_last, layer, harmful),
        last_token(harmless_output.hidden_states, harmless_last, layer, harmless),
    )
    return PlainLosses(weights[0] * kl - weights[1] * distance, kl, distance)
