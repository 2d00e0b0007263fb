"""Refusals of harmful prompts, for methods that teach them."""

from __future__ import annotations

import zlib

from es2_lightning.prompts.prompt import Prompt

REFUSALS: tuple[str, ...] = (
    "I'm sorry, but I can't help with that.",
    "I can't assist with this request, because it could lead to someone being harmed.",
    "Sorry, I won't help with that. If there is something else that you need, please ask.",
    "I'm not able to help with this. It could hurt people, and I don't want to contribute to that.",
    "That is something I have to decline. I'd be glad to help with a safe alternative.",
    "I can't provide that. If you or someone else is in danger, please contact local services.",
)
"""This project's own; each is one that `judge=keyword` takes for a refusal."""


def refusal_of(prompt: Prompt) -> str:
    """The prompt's own refusal, or one of `REFUSALS`: always the same one for the same words."""
    if prompt.refusal is not None:
        return prompt.refusal
    return REFUSALS[zlib.crc32(prompt.conversation.encode()) % len(REFUSALS)]
