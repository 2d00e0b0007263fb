"""Activation checkpointing: blocks are recomputed in the backward pass."""

from __future__ import annotations

from torch import nn

from es2_lightning.backbone.packed_attention import recomputing
from es2_lightning.backbone.structure import causal_lm_of

HOW = {"use_reentrant": False, "context_fn": recomputing}
"""Re-entrant checkpointing fires hooks twice, and what they captured carries no gradient. A
recomputed block must see the layout of its forward pass."""


def enable_checkpointing(model: nn.Module) -> None:
    """Switch it on for all blocks; it works in train mode only, as transformers has it.

    Below an adapter it is the causal LM that is asked, and what it then does to the embeddings'
    output is undone: transformers and peft make it require gradients, which non-re-entrant
    checkpointing does not need, which costs block 1 gradients of its input, and which would hide
    that nothing trainable stands before a layer.
    """
    causal_lm = causal_lm_of(model)
    if hasattr(causal_lm, "activation_checkpointing_enable"):
        causal_lm.activation_checkpointing_enable(activation_checkpointing_kwargs=HOW)
    else:  # transformers before it was renamed
        causal_lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs=HOW)
    if hasattr(causal_lm, "_require_grads_hook"):
        causal_lm.disable_input_require_grads()
    assert _asked(model), "no module took activation checkpointing"


def disable_checkpointing(model: nn.Module) -> None:
    """Undo `enable_checkpointing`."""
    if not _asked(model):
        return
    causal_lm = causal_lm_of(model)
    if hasattr(causal_lm, "activation_checkpointing_disable"):
        causal_lm.activation_checkpointing_disable()
    else:  # transformers before it was renamed
        causal_lm.gradient_checkpointing_disable()


def assert_checkpointing_active(model: nn.Module) -> None:
    """Where it is switched on, every module that was asked is in train mode.

    transformers tests `self.training` and is silent otherwise: models arrive in eval mode, and the
    memory that was to be saved is not.
    """
    idle = [name for name, module in _asked(model).items() if not module.training]
    assert not idle, f"activation checkpointing is switched on and inactive in {idle[0]}"


def _asked(model: nn.Module) -> dict[str, nn.Module]:
    return {
        name: module
        for name, module in model.named_modules()
        if getattr(module, "gradient_checkpointing", False) is True
    }
