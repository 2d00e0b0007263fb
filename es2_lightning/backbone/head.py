"""From the final norm's output to logits, as the model itself does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from es2_lightning.backbone.chat_model import eval_mode
from es2_lightning.backbone.linear_head import LinearHead
from es2_lightning.backbone.structure import causal_lm_of, find_structure
from es2_lightning.errors import UserError

LIKE = 0.02
"""How far logits may be from the model's own, relative to their norm: rounding in bf16 is less."""


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


@torch.no_grad()
def check_head(model: nn.Module, token_ids: Sequence[int]) -> None:
    """Try whether `logits_of` makes the model's own logits.

    Args:
        model: A causal LM, or a peft model around one.
        token_ids: What to try it on; a few tokens.

    Raises:
        UserError: It does not, so that a KL would be of other distributions than the model's.
    """
    if (weight := next(model.parameters())).is_meta:
        return
    seen: list[Tensor] = []
    hook = find_structure(model).final_norm.register_forward_hook(
        lambda _module, _args, output: seen.append(output)
    )
    try:
        with eval_mode(model):
            ids = torch.tensor([list(token_ids)], device=weight.device)
            own = model(input_ids=ids, use_cache=False).logits.float()
            ours = logits_of(model, seen[0]).float()
    finally:
        hook.remove()
    if ours.shape == own.shape and (ours - own).norm() <= LIKE * own.norm():
        return
    raise UserError(
        f"{type(causal_lm_of(model)).__name__} makes logits of its final norm's output otherwise "
        "than by its head and a soft cap or scale that its configuration names as Gemma, Cohere, "
        "Granite, Falcon-H1 or HyperCLOVA X do, so a KL would be of other distributions than its "
        "own. Accepted: a model that does it so"
    )


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
    cap = cap or getattr(config, "logits_soft_cap", None)  # RecurrentGemma
    # Cohere; MPT's configuration has the same word, which its model does not read.
    scale = getattr(causal_lm_of(model), "logit_scale", None) or 1.0
    scale *= getattr(config, "lm_head_multiplier", None) or 1.0  # Falcon-H1
    scaling = getattr(config, "logits_scaling", None) or 1.0  # Granite
    # HyperCLOVA X multiplies where Granite divides.
    return cap or None, scale * scaling if config.model_type == "hyperclovax" else scale / scaling
