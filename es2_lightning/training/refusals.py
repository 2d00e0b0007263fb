"""The reference's own refusals of the harmful training prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from es2_lightning.backbone.generation import generate
from es2_lightning.backbone.reference import Reference
from es2_lightning.prompts.prompt import Prompt

MAX_NEW_TOKENS = 32
"""Of a refusal."""


def collect_refusals(
    reference: Reference,
    prompts: Sequence[Prompt],
    is_refusal: Callable[[Prompt, str], bool],
    *,
    max_new_tokens: int,
    batch_size: int = 64,
) -> dict[Prompt, str]:
    """What the reference answers to harmful prompts, where it refuses.

    Args:
        reference: The frozen reference.
        prompts: Harmful prompts.
        is_refusal: Judges a response; what is no refusal is dropped, since keeping it would teach
            the model to comply.
        max_new_tokens: Of each response.
        batch_size: Prompts at once.

    Returns:
        Prompt to refusal; the caller counts what is missing.
    """
    with reference.chat_model() as chat_model:
        responses = generate(
            chat_model,
            prompts,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
        )
    return {
        prompt: response
        for prompt, response in zip(prompts, responses, strict=True)
        if is_refusal(prompt, response)
    }
