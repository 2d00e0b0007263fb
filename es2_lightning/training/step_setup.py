"""What a step's settings ask of the model, once, before it trains."""

from __future__ import annotations

import logging
from typing import Any

from es2_lightning.backbone.compiled import compile_blocks
from es2_lightning.backbone.layouts import Packing
from es2_lightning.backbone.lean_norms import make_norms_lean
from es2_lightning.backbone.packing_choice import has_dropout
from es2_lightning.training.settings import StepSettings

log = logging.getLogger(__name__)


def set_up_step(model: Any, step: StepSettings, *, packing: Packing) -> None:
    """Give the model lean norms and compiled blocks, and say what is left out.

    A copied reference is copied before that.

    Args:
        model: A causal LM, or a peft model around one.
        step: What was set.
        packing: What `step.packing` came to.
    """
    if step.lean_norms:
        make_norms_lean(model)
    if step.compile:
        compile_blocks(model)
    if step.shared_prefix == "never":
        return
    if packing not in ("grid", "block_mask"):
        if step.shared_prefix == "always":
            log.warning(
                "step.shared_prefix=always has no effect: a prefix is shared on grids or under a "
                "block mask, and this model's prompts are laid out otherwise (%s)",
                packing,
            )
    elif has_dropout(model):
        if step.shared_prefix == "always":
            log.info(
                "All prompts of a batch share the dropout of the tokens that they begin with "
                "(step.shared_prefix=always)"
            )
        else:
            log.info(
                "With dropout, the tokens that all prompts begin with are computed for each; "
                "step.shared_prefix=always computes them once, with one dropout for all"
            )
