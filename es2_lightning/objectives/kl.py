"""KL(base ‖ tuned) on next-token distributions, and where it is taken.

Shape legend: B rows, P positions, E positions of all rows, V vocabulary.

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


def kl_positions(num_prompt: int, num_response: int, positions: KLPositions) -> range:
    """The positions of a row at which next-token distributions are compared.

    Args:
        num_prompt: Tokens of the prompt, at least 1.
        num_response: Tokens of its response, 0 where there is none.
        positions: `all`: every token of prompt and response. `last`: the prompt's last token
            alone, where the answer begins. `response`: the positions that predict a token of the
            response, from the prompt's last token on (that one alone where there is no response).
    """
    last = num_prompt - 1
    if positions == "all":
        return range(num_prompt + num_response)
    if positions == "last":
        return range(last, last + 1)
    # Position t predicts token t + 1.
    return range(last, last + max(num_response, 1))


def kl_at_positions(base_logits_PV: Tensor, tuned_logits_PV: Tensor) -> Tensor:
    """KL(softmax base ‖ softmax tuned) of each of P positions, (P,), in nats, in float32."""
    base = _log_softmax(base_logits_PV)
    tuned = _log_softmax(tuned_logits_PV)
    return (base.exp() * (base - tuned)).sum(-1)


def mean_by_row(kl_E: Tensor, row_E: Tensor, outputs_per_row_B: Tensor) -> Tensor:
    """The mean KL over each row's positions, (B,), in nats; 0 where there are none.

    Args:
        kl_E: Of E positions.
        row_E: The row of each.
        outputs_per_row_B: How many each row has, 1 where there are none.
    """
    sums_B = kl_E.new_zeros(len(outputs_per_row_B)).index_add(0, row_E, kl_E)
    return sums_B / outputs_per_row_B


def _log_softmax(logits: Tensor) -> Tensor:
    return F.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=-1)
