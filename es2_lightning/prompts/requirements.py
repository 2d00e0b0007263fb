"""What every split must hold before anything long is begun."""

from __future__ import annotations

from es2_lightning.errors import UserError
from es2_lightning.prompts.prompt import PromptSplits


def require_both_classes(splits: PromptSplits) -> None:
    """Refuse prompts of which a split lacks a class.

    Raises:
        UserError: Which split lacks which class.
    """
    for name in ("train", "validation", "test"):
        prompts = getattr(splits, name)
        for kind in ("harmful", "harmless"):
            if not getattr(prompts, kind):
                raise UserError(
                    f"data: the {name} split has no {kind} prompts; at least one is needed. "
                    "More prompts, or other shares of the splits, give it some."
                )
