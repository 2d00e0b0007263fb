"""How far a tuned model's answers have drifted from its base's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import log_softmax

from es2_lightning.backbone.hidden_states import at_position
from es2_lightning.backbone.reference import Reference, forward_logits
from es2_lightning.evaluation.intervals import Estimate, mean

if TYPE_CHECKING:
    from es2_lightning.backbone.chat import Asked
    from es2_lightning.backbone.chat_model import ChatModel


@torch.no_grad()
def kl_to_reference(
    chat_model: ChatModel, reference: Reference, prompts: Sequence[Asked], *, batch_size: int = 64
) -> Estimate:
    """Mean KL(reference ‖ model) of the response's first token, in nats per prompt."""
    found: list[float] = []
    for start in range(0, len(prompts), batch_size):
        batch = chat_model.renderer.encode(prompts[start : start + batch_size])
        batch = batch.to(chat_model.device)
        last = batch.last_prompt_index
        with reference.chat_model() as base_model:
            base_logits = forward_logits(base_model.model, batch)
        base, tuned = (
            log_softmax(at_position(logits, last).float(), dim=-1)
            for logits in (base_logits, forward_logits(chat_model.model, batch))
        )
        found += (base.exp() * (base - tuned)).sum(-1).clamp(min=0).tolist()
    return mean(found)
