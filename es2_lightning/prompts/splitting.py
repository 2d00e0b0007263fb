"""Splits prompts at random, so that no prompt occurs twice or in both classes."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterable, Sequence

from es2_lightning.errors import UserError
from es2_lightning.prompts.prompt import Prompt, PromptSet, PromptSplits

log = logging.getLogger(__name__)


def check_shares(validation: float, test: float) -> None:
    """Refuse shares that leave a split empty.

    Raises:
        UserError: They are not above 0, or leave nothing for training.
    """
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise UserError(
            f"data.source: validation={validation:g}, test={test:g}: accepted are shares above 0 "
            "that leave some prompts for training"
        )


def split_prompts(
    harmful: Sequence[Prompt],
    harmless: Sequence[Prompt],
    *,
    validation: float,
    test: float,
    seed: int,
) -> PromptSplits:
    """Split each class by the same shares.

    Prompts that differ only in case and spacing are one prompt: copies are dropped and counted.

    Args:
        validation: The share held out for choosing.
        test: The share held out for measuring.
        seed: Of the shuffle.

    Raises:
        UserError: A prompt is in both classes, or a class has fewer than three prompts.
    """
    check_shares(validation, test)
    classes = {"harmful": _distinct(harmful), "harmless": _distinct(harmless)}
    for name, before in (("harmful", harmful), ("harmless", harmless)):
        if dropped := len(before) - len(classes[name]):
            log.warning(
                "%d of %d %s prompts are copies and are dropped", dropped, len(before), name
            )
        if len(classes[name]) < 3:
            raise UserError(
                f"data: {len(classes[name])} different {name} prompts cannot be split into train, "
                "validation and test; at least 3 are needed"
            )
    if both := classes["harmful"].keys() & classes["harmless"].keys():
        example = classes["harmful"][min(both)].text
        raise UserError(
            f"data: {len(both)} prompts are both harmful and harmless, such as {example[:80]!r}"
        )
    parts: dict[str, list[Prompt]] = {"train": [], "validation": [], "test": []}
    for name, prompts in classes.items():
        order = list(prompts.values())
        random.Random(f"{seed}/{name}").shuffle(order)
        held_out, tested = (max(1, math.floor(share * len(order))) for share in (validation, test))
        parts["validation"] += order[:held_out]
        parts["test"] += order[held_out : held_out + tested]
        parts["train"] += order[held_out + tested :]
    return PromptSplits(**{name: PromptSet(tuple(prompts)) for name, prompts in parts.items()})


def _distinct(prompts: Iterable[Prompt]) -> dict[str, Prompt]:
    found: dict[str, Prompt] = {}
    for prompt in prompts:
        found.setdefault(" ".join(prompt.text.lower().split()), prompt)
    return found
