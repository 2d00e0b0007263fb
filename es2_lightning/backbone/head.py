"""From the final norm's output to logits, as the model itself does it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from es2_lightning.backbone.linear_head import LinearHead
from es2_lightning.backbone.structure import causal_lm_of, find_structure


def logits_of(model: nn.Module, hidden: Tensor) -> Tensor:
    """(…, D) → (…, V): the head, then the soft-capping or scaling that the configuration names.

    Args:
        model: A causal LM, or a peft model around one.
        hidden: What left the final norm.
    """
    logits: Tensor = find_structure(model).head(hidden)
    cap, scale = _cap_and_scale(model)
    if cap is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits if scale == 1.0 else logits * scale


def linear_head(model: nn.Module) -> LinearHead | None:
    """The same as tensors; None where the head is no plain linear map with dense weights.

    That is a head with an adapter, hooks or quantized weights: there only `logits_of` is right.

    Args:
        model: A causal LM, or a peft model around one.
    """
    head = find_structure(model).head
    if not isinstance(head, nn.Linear) or type(head).forward is not nn.Linear.forward:
        return None
    # accelerate puts a forward of its own into the instance.
    changed = head._forward_hooks or head._forward_pre_hooks or "forward" in vars(head)
    if changed or type(head.weight) is not nn.Parameter:
        return None
    cap, scale = _cap_and_scale(model)
    return LinearHead(head.weight, head.bias, soft_cap=cap, scale=scale)


def _cap_and_scale(model: nn.Module) -> tuple[float | None, float]:
    config: Any = causal_lm_of(model).config.get_text_config(decoder=True)
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma
    scale = getattr(config, "logit_scale", None) or 1.0  # Cohere
    divisor = getattr(config, "logits_scaling", None) or 1.0  # Granite
    return cap or None, scale / divisor
