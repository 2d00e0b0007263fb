"""The model that the ways of a step are tried on, real or on `meta`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from es2_lightning.backbone.adapters import add_lora
from es2_lightning.backbone.chat import ChatRenderer
from es2_lightning.backbone.chat_model import ChatModel
from es2_lightning.backbone.load_errors import explaining_load_errors
from es2_lightning.hub_access import only_local
from es2_lightning.training.cost.named_shapes import NAMED_SHAPES, to_config

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from es2_lightning.backbone.settings import LoraSettings, ModelSettings

STEP = 0.05
"""Standard deviation of LoRA's B matrices, with which the model is some way from its base."""


def config_of(settings: ModelSettings, shape: str | None) -> PretrainedConfig:
    """The configuration of the named shape, or of the model that is set.

    Raises:
        UserError: The model is missing, gated, or cannot be loaded as was set.
    """
    if shape is not None:
        return to_config(NAMED_SHAPES[shape])
    from es2_lightning.backbone.loading import read_config

    return read_config(settings)


def renderer_of(settings: ModelSettings) -> ChatRenderer:
    """How the model's prompts become tokens; no weights are read.

    Raises:
        UserError: The tokenizer is missing or gated.
    """
    from transformers import AutoTokenizer

    name = settings.name_or_path
    with explaining_load_errors(name):
        tokenizer = AutoTokenizer.from_pretrained(
            name,
            revision=settings.revision,
            trust_remote_code=settings.trust_remote_code,
            local_files_only=only_local(name),
        )
    return ChatRenderer(
        tokenizer,
        max_length=settings.max_length,
        system_prompt=settings.system_prompt,
        chat_template_kwargs=settings.chat_template_kwargs,
        template_date=settings.template_date,
    )


def model_without_weights(
    config: PretrainedConfig, *, dtype: str, attn_implementation: str | None
) -> ChatModel:
    """On `meta`: all shapes, no memory."""
    return _random_model(
        config, torch.device("meta"), dtype=dtype, attn_implementation=attn_implementation
    )


def random_model(
    config: PretrainedConfig,
    device: torch.device,
    *,
    dtype: str,
    attn_implementation: str | None,
    seed: int,
) -> ChatModel:
    """Random weights, as transformers initialises them, made on the device itself."""
    torch.manual_seed(seed)
    return _random_model(config, device, dtype=dtype, attn_implementation=attn_implementation)


def _random_model(
    config: PretrainedConfig,
    device: torch.device,
    *,
    dtype: str,
    attn_implementation: str | None,
) -> ChatModel:
    from transformers import AutoModelForCausalLM

    with device:
        model = AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, dtype), attn_implementation=attn_implementation
        )
    # No prompt is rendered: a batch's tokens are random.
    absent: Any = None
    return ChatModel(model.eval(), absent, absent)


def tune(chat_model: ChatModel, lora: LoraSettings, *, seed: int) -> None:
    """Give the model an adapter that does something, in train mode, as in the midst of training.

    A fresh adapter adds nothing: the KL and its gradient would be rounding alone.

    Args:
        chat_model: The base model; its `model` becomes a peft model.
        lora: The adapter.
        seed: Of the adapter's weights.
    """
    torch.manual_seed(seed)
    chat_model.model = add_lora(
        chat_model.model.requires_grad_(False),
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=lora.target_modules,
    ).train()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in chat_model.model.named_parameters():
        if "lora_B" in name and parameter.device.type != "meta":
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data += (STEP * noise).to(parameter)
