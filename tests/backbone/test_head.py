"""The head as tensors against the model's own logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from es2_lightning.backbone.adapters import add_lora
from es2_lightning.backbone.head import check_head, linear_head, logits_of
from es2_lightning.backbone.structure import find_structure
from es2_lightning.errors import UserError

from ..tiny_models import ARCHITECTURES, Architecture, tiny_chat_model

CAPPED_OR_SCALED = [
    ("gemma2", {"final_logit_softcapping": 0.5}),
    ("cohere", {"logit_scale": 0.25}),
    ("granite", {"logits_scaling": 4.0}),
    ("hyperclovax", {"logits_scaling": 4.0}),
    ("recurrent_gemma", {"logits_soft_cap": 0.5}),
    ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 4, "logit_scale": 0.25}),
]


@pytest.mark.parametrize(
    ("architecture", "changed"), [*((name, {}) for name in ARCHITECTURES), *CAPPED_OR_SCALED]
)
def test_the_head_as_tensors_makes_the_models_logits(
    architecture: Architecture, changed: dict[str, float]
) -> None:
    model = tiny_chat_model(architecture, **changed).model
    hidden = []
    hook = find_structure(model).final_norm.register_forward_hook(
        lambda module, args, output: hidden.append(output)
    )
    with torch.no_grad():
        logits = model(input_ids=torch.arange(1, 9)[None]).logits
    hook.remove()
    head = linear_head(model)
    assert head is not None and head.trains
    torch.testing.assert_close(head.logits(hidden[0]), logits)
    torch.testing.assert_close(logits_of(model, hidden[0]), logits)


def test_a_model_that_makes_its_logits_otherwise_is_refused() -> None:
    model = tiny_chat_model().model
    check_head(add_lora(tiny_chat_model().model), [1, 5, 6])
    forward = model.forward

    def doubled(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        output.logits = 2 * output.logits
        return output

    model.forward = doubled
    with pytest.raises(UserError, match=r"LlamaForCausalLM makes logits .* otherwise"):
        check_head(model, [1, 5, 6])
    assert not find_structure(model).final_norm._forward_hooks


def test_a_frozen_head_under_an_adapter() -> None:
    head = linear_head(add_lora(tiny_chat_model().model))
    assert head is not None and not head.trains


def test_a_head_with_more_than_a_weight_is_none() -> None:
    adapted = get_peft_model(tiny_chat_model().model, LoraConfig(target_modules=["lm_head"]))
    assert linear_head(adapted) is None
    kept = LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"])
    assert linear_head(get_peft_model(tiny_chat_model().model, kept)) is None
    hooked = tiny_chat_model().model
    hook = hooked.lm_head.register_forward_hook(lambda module, args, output: 2 * output)
    assert linear_head(hooked) is None
    hook.remove()
    hooked.lm_head.forward = torch.nn.Linear.forward.__get__(hooked.lm_head)
    assert linear_head(hooked) is None
