"""Generating many times from the same prompts: what stands before the last token is computed once.

A prompt's last token is where interventions on hidden states begin, so the key-value cache of all
that stands before it is the same in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from es2_lightning.backbone.generation import own_passes
from es2_lightning.backbone.preallocated_cache import select_rows
from es2_lightning.backbone.sampling import GumbelNoise

if TYPE_CHECKING:
    from es2_lightning.backbone.chat import Asked
    from es2_lightning.backbone.chat_model import ChatModel


@dataclass(frozen=True)
class SharedPrefix:
    """P prompts, padded on the left to T tokens, and the cache of their first T - 1.

    Attributes:
        chat_model: The model that the cache belongs to.
        input_ids: (P, T).
        attention_mask: (P, T).
        begun_mask: (P, T) bool, true on the beginnings of responses.
        cache: transformers' cache, P rows.
    """

    chat_model: ChatModel
    input_ids: Tensor
    attention_mask: Tensor
    begun_mask: Tensor
    cache: Any

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        chat_model: ChatModel,
        prompts: Sequence[Asked],
        *,
        prefixes: Sequence[str | None] | None = None,
    ) -> SharedPrefix:
        """Run the model over all but the last token of each prompt, without interventions.

        Args:
            chat_model: Run as it is.
            prompts: User turns, alone or with the conversation before them.
            prefixes: How each response begins; it counts as part of the prompt here.
        """
        batch = chat_model.renderer.encode(prompts, prefixes, padding_side="left", ended=False).to(
            chat_model.device
        )
        mask = batch.attention_mask
        cache = chat_model.model(
            input_ids=batch.input_ids[:, :-1],
            attention_mask=mask[:, :-1],
            position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0)[:, :-1],
            use_cache=True,
            logits_to_keep=1,
        ).past_key_values
        return cls(chat_model, batch.input_ids, mask, batch.response_mask, cache)

    @torch.no_grad()
    def generate(
        self, rows: Sequence[int], *, max_new_tokens: int, noise: GumbelNoise | None = None
    ) -> tuple[list[str], Tensor]:
        """Responses, greedy or sampled; each forward pass sees one position a row.

        The first pass sees the prompts' last tokens, each later one the token generated before.
        A `steer()` around this call therefore acts on these positions and on no other.

        Args:
            rows: Which prompt each row continues; a prompt may have any number of rows.
            max_new_tokens: Where a response is cut off; its prefix does not count.
            noise: Makes the responses samples; None: greedy.

        Returns:
            The decoded responses with their prefixes, and how many forward passes each row's own
            tokens took (B,), its end-of-turn token included.
        """
        model, tokenizer = self.chat_model.model, self.chat_model.tokenizer
        index = torch.tensor(rows, device=self.input_ids.device)
        sequences = model.generate(
            input_ids=self.input_ids[index],
            attention_mask=self.attention_mask[index],
            past_key_values=select_rows(self.cache, index, room=max_new_tokens),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            logits_processor=LogitsProcessorList([] if noise is None else [noise]),
        )
        width = self.input_ids.shape[1]
        # Decoded in one piece, so that the space between prefix and continuation is right.
        said = [
            torch.cat([ids[:width][begun], ids[width:]]).tolist()
            for ids, begun in zip(sequences, self.begun_mask[index], strict=True)
        ]
        texts = tokenizer.batch_decode(said, skip_special_tokens=True)
        return [text.strip() for text in texts], own_passes(model, sequences[:, width:]).cpu()
