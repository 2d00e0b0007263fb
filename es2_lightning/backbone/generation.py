"""Generation over many prompts: greedy, or sampled, from the start or from a given beginning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from es2_lightning.backbone.chat import Asked, words_of
from es2_lightning.backbone.sampling import GumbelNoise, row_seed
from es2_lightning.errors import UserError

if TYPE_CHECKING:
    from es2_lightning.backbone.chat_model import ChatModel


def own_passes(model: Any, new_BS: Tensor) -> Tensor:
    """How many forward passes each row's own tokens took (B,), its end-of-turn token included.

    Args:
        model: What generated them.
        new_BS: The generated tokens; a row that ended is padded.
    """
    ids = model.generation_config.eos_token_id
    listed = list(ids) if isinstance(ids, (list, tuple)) else [-1 if ids is None else ids]
    ends = torch.isin(new_BS, torch.tensor(listed, device=new_BS.device))
    return torch.where(ends.any(1), ends.int().argmax(1) + 1, new_BS.shape[1])


@torch.no_grad()
def generate(
    chat_model: ChatModel,
    prompts: Sequence[Asked],
    *,
    max_new_tokens: int,
    batch_size: int = 64,
    prefixes: Sequence[str | None] | None = None,
    temperature: float = 0.0,
    num_return_sequences: int = 1,
    seed: int = 0,
    together: bool = False,
) -> list[str]:
    """Each prompt's responses, decoded without special tokens, in the prompts' order.

    Sampling is from the whole distribution, without top-k or top-p. What a prompt gets depends on
    its text, its prefix and the seed alone, not on its neighbours, and torch's global random state
    is neither read nor changed.

    Args:
        chat_model: Run as it is, adapters and hooks included.
        prompts: User turns, alone or with the conversation before them.
        max_new_tokens: Where a response is cut off; a prefix does not count.
        batch_size: Rows per forward pass.
        prefixes: How each response begins; the model goes on from there. None or empty: from the
            start.
        temperature: 0 is greedy.
        num_return_sequences: Responses a prompt; more than one only makes sense with a temperature.
        seed: Of the samples.
        together: All ranks call this with the same prompts, and make the same number of forward
            passes, as a sharded model must.

    Returns:
        `num_return_sequences` responses for each prompt, those of a prompt side by side. **A prefix
        is part of the response**: it is what the user would read.

    Raises:
        UserError: A prompt with its prefix is longer than the renderer allows, the temperature is
            negative, or several greedy responses are asked for.
    """
    if temperature < 0:
        raise UserError(f"temperature={temperature:g}: accepted is 0 (greedy) or above")
    if num_return_sequences > 1 and temperature == 0:
        raise UserError(
            f"num_return_sequences={num_return_sequences} with temperature=0: greedy "
            "responses are all alike; accepted is a temperature above 0, or one response"
        )
    begun = [None] * len(prompts) if prefixes is None else list(prefixes)
    rows = [i for i in range(len(prompts)) for _ in range(num_return_sequences)]
    copies = [copy for _ in prompts for copy in range(num_return_sequences)]
    texts = [words_of(prompt) for prompt in prompts]
    order = sorted(
        range(len(rows)), key=lambda row: -len(texts[rows[row]]) - len(begun[rows[row]] or "")
    )
    outputs = [""] * len(rows)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = chat_model.renderer.encode(
            [prompts[rows[row]] for row in chosen],
            [begun[rows[row]] for row in chosen],
            padding_side="left",
            ended=False,
        ).to(chat_model.device)
        noise = LogitsProcessorList()
        if temperature > 0:
            seeds = [
                row_seed(seed, texts[rows[row]], begun[rows[row]], copies[row]) for row in chosen
            ]
            noise.append(GumbelNoise(seeds, temperature, chat_model.device))
        sequences = chat_model.model.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=chat_model.tokenizer.pad_token_id,
            logits_processor=noise,
            synced_gpus=together,
        )
        for row, ids, response in zip(chosen, sequences, batch.response_mask, strict=True):
            # Decoded in one piece, so that the space between prefix and continuation is right.
            written = torch.cat([ids[: len(response)][response], ids[len(response) :]])
            text = chat_model.tokenizer.decode(written, skip_special_tokens=True)
            outputs[row] = str(text).strip()
    return outputs
