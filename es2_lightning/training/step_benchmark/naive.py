"""A training step as it is usually written: the yardstick that all ways are measured against.

Plain transformers and peft on purpose, without this project's own parts: what the others give has
to be what it gives. Two copies of the model, three full forwards over padded rows, all hidden
states, logits of all positions in float32, `F.kl_div`, masks.

Shape legend: B prompts, T positions, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from es2_lightning.backbone.structure import find_structure
from es2_lightning.backbone.token_rows import TokenRow


@dataclass(frozen=True)
class PaddedRows:
    """Prompts padded together on the right.

    Attributes:
        input_ids: (B, T).
        attention_mask: (B, T), 1 on tokens.
        kl_mask: (B, T), 1 where the KL is taken.
        last_index: (B,), the position of each prompt's last token.
    """

    input_ids: Tensor
    attention_mask: Tensor
    kl_mask: Tensor
    last_index: Tensor

    @classmethod
    def of(cls, rows: Sequence[TokenRow], device: torch.device, *, length: int) -> PaddedRows:
        """Rows padded to a length of T tokens."""
        shape = (len(rows), length)
        input_ids = torch.zeros(shape, dtype=torch.long)
        attention_mask, kl_mask = torch.zeros_like(input_ids), torch.zeros(shape)
        for i, row in enumerate(rows):
            input_ids[i, : len(row.token_ids)] = torch.tensor(row.token_ids)
            attention_mask[i, : len(row.token_ids)] = 1
            kl_mask[i, list(row.output_positions)] = 1
        last_index = torch.tensor([row.last_prompt_index for row in rows])
        tensors = (input_ids, attention_mask, kl_mask, last_index)
        return cls(*(tensor.to(device) for tensor in tensors))


@dataclass(frozen=True)
class PlainLosses:
    """The step's loss and its two terms, scalars."""

    loss: Tensor
    kl: Tensor
    distance: Tensor


def naive_step(
    policy: Any,
    reference: Any,
    harmless: PaddedRows,
    harmful: PaddedRows,
    layer: int,
    weights: tuple[float, float],
) -> PlainLosses:
    """Three full forwards: the reference on harmless prompts, the policy on both classes.

    Args:
        policy: The model that is tuned.
        reference: A second, frozen copy without the adapter.
        harmless: Their KL to the reference is taken.
        harmful: Their distance to the harmless ones is.
        layer: Whose states are separated, 1 … L; L before the final norm.
        weights: Of the KL, λ, and of the distance.
    """
    with torch.no_grad():
        reference_logits = full_forward(reference, harmless).logits.float()
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


def padded_kl(logits_BTV: Tensor, reference_logits_BTV: Tensor, mask_BT: Tensor) -> Tensor:
    """KL(reference ‖ policy), the mean over each prompt's positions, then over prompts."""
    kl_BT = F.kl_div(
        F.log_softmax(logits_BTV, -1),
        F.log_softmax(reference_logits_BTV, -1),
        log_target=True,
        reduction="none",
    ).sum(-1)
    return ((kl_BT * mask_BT).sum(1) / mask_BT.sum(1)).mean()


def mean_distance(harmful: Tensor, harmless: Tensor) -> Tensor:
    """The mean Euclidean distance of all pairs, in float32."""
    # Its default goes through a matrix product above 25 rows, which loses up to 3 %.
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(harmful.float(), harmless.float(), compute_mode=mode).mean()


def last_token(
    hidden_states: Sequence[Tensor], last_block: list[Tensor], layer: int, rows: PaddedRows
) -> Tensor:
    """(B, D): a layer's states at each prompt's last token."""
    # transformers' last entry has the final norm behind it; all others are what blocks gave.
    states = last_block[0] if layer == len(hidden_states) - 1 else hidden_states[layer]
    index = torch.arange(len(states), device=states.device)
    return states[index, rows.last_index]


@contextmanager
def last_block_states(policy: Any) -> Iterator[list[Tensor]]:
    """Yields a list into which a forward pass puts the last block's output, (B, T, D)."""
    seen: list[Tensor] = []
    norm = find_structure(policy).final_norm
    handle = norm.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()


def full_forward(model: Any, rows: PaddedRows) -> Any:
    """transformers' output: logits of every position and the states of every layer."""
    return model(
        input_ids=rows.input_ids,
        attention_mask=rows.attention_mask,
        output_hidden_states=True,
        use_cache=False,
    )
