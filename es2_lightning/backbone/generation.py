"""Greedy generation over many prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from es2_lightning.backbone.chat_model import ChatModel


@torch.no_grad()
def generate(
    chat_model: ChatModel, prompts: Sequence[str], *, max_new_tokens: int, batch_size: int = 64
) -> list[str]:
    """Each prompt's greedy response, decoded without special tokens, in the prompts' order."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    outputs = [""] * len(prompts)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = chat_model.renderer.encode([prompts[i] for i in chosen], padding_side="left")
        batch = batch.to(chat_model.device)
        sequences = chat_model.model.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=chat_model.tokenizer.pad_token_id,
        )
        texts = chat_model.tokenizer.batch_decode(
            sequences[:, batch.input_ids.shape[1] :], skip_special_tokens=True
        )
        for i, text in zip(chosen, texts, strict=True):
            outputs[i] = text.strip()
    return outputs
