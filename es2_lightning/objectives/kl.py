"""KL(base ‖ tuned) on next-token distributions, and where it is taken.

Shape legend: B prompts, T positions, V vocabulary.

The reduction decides what a KL weight and a threshold mean. Here it is always the mean over the
valid positions of each prompt, then over prompts; padding never counts.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

KLPositions = Literal["all", "last", "response"]
KL_POSITIONS: tuple[KLPositions, ...] = get_args(KLPositions)


def kl_position_mask(
    attention_mask_BT: Tensor,
    response_mask_BT: Tensor,
    last_prompt_index_B: Tensor,
    positions: KLPositions,
) -> Tensor:
    """The positions at which next-token distributions are compared, (B, T) bool.

    Args:
        attention_mask_BT: 1 on tokens, 0 on padding.
        response_mask_BT: True on the response's tokens.
        last_prompt_index_B: The position of each prompt's last token.
        positions: `all`: every token of prompt and response. `last`: the prompt's last token
            alone, where the answer begins. `response`: the positions that predict a token of the
            response, from the prompt's last token on (that one alone where there is no response).
    """
    if positions == "all":
        return attention_mask_BT.bool()
    index = torch.arange(attention_mask_BT.shape[1], device=attention_mask_BT.device)
    last = index[None] == last_prompt_index_B[:, None]
    if positions == "last":
        return last
    # Position t predicts token t + 1: the response's mask, moved one to the left.
    return last | F.pad(response_mask_BT[:, 1:], (0, 1), value=False)


def kl_at_positions(base_logits_PV: Tensor, tuned_logits_PV: Tensor) -> Tensor:
    """KL(softmax base ‖ softmax tuned) of each of P positions, (P,), in nats, in float32."""
    base = _log_softmax(base_logits_PV)
    tuned = _log_softmax(tuned_logits_PV)
    return (base.exp() * (base - tuned)).sum(-1)


def kl_per_prompt(base_logits_BTV: Tensor, tuned_logits_BTV: Tensor, mask_BT: Tensor) -> Tensor:
    """The mean KL over each prompt's valid positions, (B,), in nats; 0 where there are none."""
    values_P = kl_at_positions(base_logits_BTV[mask_BT], tuned_logits_BTV[mask_BT])
    rows_P = mask_BT.nonzero()[:, 0]
    sums_B = values_P.new_zeros(mask_BT.shape[0]).index_add(0, rows_P, values_P)
    return sums_B / mask_BT.sum(1).clamp(min=1)


def _log_softmax(logits: Tensor) -> Tensor:
    return F.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=-1)
