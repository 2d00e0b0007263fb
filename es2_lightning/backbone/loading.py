"""From what a user set about the model to the model that trains."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from es2_lightning.backbone.adapters import add_lora, leaves_experts_out
from es2_lightning.backbone.chat_model import ChatModel, load_config, load_renderer
from es2_lightning.backbone.checkpointing import enable_checkpointing
from es2_lightning.backbone.compatibility import (
    check_settings,
    check_training,
    preset_mismatch,
    saved_as_mxfp4,
)
from es2_lightning.backbone.settings import ModelSettings
from es2_lightning.backbone.structure import give_structure, num_layers
from es2_lightning.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from es2_lightning.backbone.chat import ChatRenderer

log = logging.getLogger(__name__)


def read_config(settings: ModelSettings) -> PretrainedConfig:
    """The model's configuration, with what was set checked against it; no weights are read.

    Raises:
        UserError: The model is missing or gated, or it cannot be loaded as was set.
    """
    config = load_config(
        settings.name_or_path,
        revision=settings.revision,
        trust_remote_code=settings.trust_remote_code,
    )
    check_settings(settings, config)
    return config


def read_depth(settings: ModelSettings) -> int:
    """L, the number of blocks, from the model's configuration alone.

    Raises:
        UserError: As `read_config`, or the configuration does not say.
    """
    depth = num_layers(read_config(settings)) or settings.num_hidden_layers
    if depth is None:
        raise UserError(
            f"model.name_or_path={settings.name_or_path}: its config.json has no "
            "num_hidden_layers. Say how many: model.num_hidden_layers=<number>."
        )
    return depth


def read_renderer(settings: ModelSettings) -> ChatRenderer:
    """How prompts become the model's tokens; no weights are read.

    Raises:
        UserError: The model is missing or gated, or has no tokenizer.
    """
    return load_renderer(
        settings.name_or_path,
        revision=settings.revision,
        trust_remote_code=settings.trust_remote_code,
        max_length=settings.max_length,
        system_prompt=settings.system_prompt,
        chat_template_kwargs=settings.chat_template_kwargs,
        template_date=settings.template_date,
    )


def check_trainable(settings: ModelSettings) -> None:
    """Refuse what cannot be trained, before any weights are read.

    Raises:
        UserError: As `check_training`.
    """
    check_training(settings, read_config(settings))


def load_chat_model(settings: ModelSettings, *, folder: Path | None = None) -> ChatModel:
    """The base model, without an adapter, in eval mode.

    Args:
        settings: What a user set.
        folder: Where other weights of the same model are: those that a run tuned.

    Raises:
        UserError: The model is missing, gated, has no safetensors weights, or cannot be loaded as
            was set.
    """
    config = read_config(settings)
    if mismatch := preset_mismatch(settings, config):
        log.warning(mismatch)
    if not settings.use_safetensors:
        log.warning(
            "model.use_safetensors=false: pickled weights are read, which can run code on this "
            "machine"
        )
    name = str(folder or settings.name_or_path)
    at = f" at {settings.revision}" if settings.revision and not folder else ""
    log.info("Loading %s%s, %s", name, at, "4 bits" if settings.mode == "qlora" else settings.dtype)
    chat_model = ChatModel.load(
        name,
        revision=None if folder else settings.revision,
        dtype=settings.dtype,
        attn_implementation=settings.attn_implementation,
        trust_remote_code=settings.trust_remote_code,
        use_safetensors=settings.use_safetensors or folder is not None,
        quantization_config=_quantization(settings, config),
        max_length=settings.max_length,
        system_prompt=settings.system_prompt,
        chat_template_kwargs=settings.chat_template_kwargs,
        template_date=settings.template_date,
    )
    give_structure(chat_model.model, settings.structure)
    return chat_model


def make_trainable(chat_model: ChatModel, settings: ModelSettings) -> None:
    """Give the model what `model.mode` trains: a fresh adapter, or all its weights.

    Raises:
        UserError: No module has a name that `model.lora.target_modules` gives.
    """
    if settings.mode == "full":
        chat_model.model.requires_grad_(True)
        if settings.dtype == "bfloat16":
            log.warning(
                "model.mode=full with model.dtype=bfloat16: steps below 0.4 %% of a weight are "
                "rounded away. model.dtype=float32 with trainer.precision=bf16-mixed keeps them."
            )
    else:
        lora = settings.lora
        adapted: dict[str, Any] = {
            "target_modules": lora.target_modules,
            "lora_dropout": lora.lora_dropout,
            "use_dora": settings.mode == "dora",
        }
        if leaves_experts_out(chat_model.model, **adapted):
            log.info(
                "all-linear: the experts stay as they are, since peft adapts them without dropout "
                "and without DoRA only (model.lora.lora_dropout=0 model.mode=lora)"
            )
        chat_model.model = add_lora(
            chat_model.model, r=lora.r, lora_alpha=lora.lora_alpha, **adapted
        )
    if settings.gradient_checkpointing:
        enable_checkpointing(chat_model.model)


def _quantization(settings: ModelSettings, config: PretrainedConfig) -> Any:
    """How transformers is to read the weights; None: as they are."""
    if settings.mode == "qlora":
        from transformers import BitsAndBytesConfig

        chosen = settings.quantization
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=chosen.bnb_4bit_quant_type,
            bnb_4bit_use_double_quant=chosen.bnb_4bit_use_double_quant,
            bnb_4bit_compute_dtype=getattr(torch, chosen.bnb_4bit_compute_dtype or settings.dtype),
        )
    if saved_as_mxfp4(config):
        from transformers.utils.quantization_config import Mxfp4Config

        return Mxfp4Config(dequantize=True)
    return None
