"""What of a user's model settings cannot work: told from the configuration, before any weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from es2_lightning.backbone.settings_check import (
    HIDDEN_STATES,
    HOLD,
    check_gpu,
    check_mode,
    check_values,
)
from es2_lightning.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from es2_lightning.backbone.settings import ModelSettings

ATTENTION = {
    "sdpa": "_supports_sdpa",
    "flash_attention_2": "_supports_flash_attn",
    "flash_attention_3": "_supports_flash_attn",
    "flex_attention": "_supports_flex_attn",
}
"""transformers' names, and the attribute of a model class that says whether it takes them."""


def check_settings(settings: ModelSettings, config: PretrainedConfig) -> None:
    """Refuse what cannot be loaded, or not trained, as the settings say.

    Raises:
        UserError: With what would be accepted.
    """
    check_values(settings)
    _check_quantization(settings, config)
    check_gpu(settings)
    architecture = _class_of(config)
    if architecture is not None:
        _check_attention(settings, architecture)
        if settings.gradient_checkpointing and not architecture.supports_gradient_checkpointing:
            raise UserError(
                f"model.gradient_checkpointing=true: {architecture.__name__} does not take it. "
                "Accepted: model.gradient_checkpointing=false, with step.micro_batch for memory."
            )


def check_training(settings: ModelSettings, config: PretrainedConfig) -> None:
    """Refuse what cannot be trained, on a model of that shape without weights.

    Raises:
        UserError: No module is named as `model.lora.target_modules` says, a path of
            `model.structure` leads nowhere, or mode, reference and dtype do not go together.
    """
    check_mode(settings)
    import torch
    from transformers import AutoModelForCausalLM

    from es2_lightning.backbone.adapters import add_lora
    from es2_lightning.backbone.structure import give_structure

    if settings.trust_remote_code:
        return  # Code that is not transformers' own need not come up without a device.
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    give_structure(skeleton, settings.structure)
    if settings.mode != "full":
        add_lora(
            skeleton,
            r=settings.lora.r,
            lora_dropout=settings.lora.lora_dropout,
            target_modules=settings.lora.target_modules,
            use_dora=settings.mode == "dora",
        )
    if settings.reference == "cached":
        check_cached_head(settings, skeleton)


def check_cached_head(settings: ModelSettings, model: Any) -> None:
    """Refuse a cache that a model's head makes impossible.

    Args:
        settings: With `reference: cached`.
        model: As it trains; weights are not needed.

    Raises:
        UserError: With what would be accepted.
    """
    from es2_lightning.backbone.head import linear_head

    head = linear_head(model)
    if settings.reference_cache.hold == "statistics":
        obstacle = "soft-caps its logits" if head is not None and head.soft_cap else None
        if head is None:
            obstacle = "is no plain linear map, or has an adapter"
        if obstacle:
            raise UserError(
                f"{HOLD}=statistics: the head of {settings.name_or_path} {obstacle}, and "
                f"statistics say enough for a frozen linear head only. {HIDDEN_STATES}"
            )
    elif settings.mode == "full" and head is None:
        raise UserError(
            f"model.mode=full with model.reference=cached: the head of {settings.name_or_path} is "
            "no plain linear map, and only such a head is kept as it was. Accepted: "
            "model.reference=copy."
        )


def preset_mismatch(settings: ModelSettings, config: PretrainedConfig) -> str:
    """What a model is and its preset is not, in a sentence; empty where they agree."""
    text = config.get_text_config(decoder=True)
    depth = getattr(text, "num_hidden_layers", None)
    found, expected = [], []
    types = (config.model_type, text.model_type)
    if settings.model_type is not None and settings.model_type not in types:
        found.append(f"a {config.model_type}")
        expected.append(f"a {settings.model_type}")
    if settings.num_hidden_layers is not None and depth not in (None, settings.num_hidden_layers):
        found.append(f"{depth} layers deep")
        expected.append(f"{settings.num_hidden_layers} layers deep")
    if not found:
        return ""
    return (
        f"{settings.name_or_path} is {' and '.join(found)}, its preset is for a model that is "
        f"{' and '.join(expected)}: LoRA targets and layers may not be the right ones. model=hf "
        "takes nothing for granted."
    )


def _check_quantization(settings: ModelSettings, config: PretrainedConfig) -> None:
    saved = getattr(config, "quantization_config", None)
    method = _method(saved)
    if settings.mode == "full" and method not in (None, "mxfp4"):
        raise UserError(
            f"model.mode=full: the weights of {settings.name_or_path} are quantized ({method}), "
            "and quantized weights do not train. Accepted: model.mode=lora."
        )
    if settings.mode != "qlora":
        return
    if saved is not None:
        raise UserError(
            f"model.mode=qlora: the weights of {settings.name_or_path} are quantized already "
            f"({method}). Accepted: model.mode=lora."
        )


def _method(saved: Any) -> str | None:
    """Which quantization a config.json names."""
    if saved is None:
        return None
    named = saved.get("quant_method") if isinstance(saved, dict) else saved.quant_method
    return str(getattr(named, "value", named))


def saved_as_mxfp4(config: PretrainedConfig) -> bool:
    """Whether the weights are MXFP4, as gpt-oss's: unpacked when they are loaded."""
    return _method(getattr(config, "quantization_config", None)) == "mxfp4"


def _class_of(config: PretrainedConfig) -> Any:
    """transformers' causal LM for a configuration; None for code of a repository's own."""
    from transformers import AutoModelForCausalLM

    found = AutoModelForCausalLM._model_mapping.get(type(config), None)
    return found[0] if isinstance(found, (list, tuple)) else found


def _check_attention(settings: ModelSettings, architecture: Any) -> None:
    name = settings.attn_implementation
    if name is None or name == "eager":
        return
    taken = ["null", "eager"] + [
        word for word, attribute in ATTENTION.items() if getattr(architecture, attribute, False)
    ]
    if name in ATTENTION and name not in taken:
        raise UserError(
            f"model.attn_implementation={name}: {architecture.__name__} does not take it. "
            f"Accepted: {', '.join(taken)}; null is transformers' choice."
        )
    from transformers import AttentionInterface

    # A kernel from the Hub is named by its repository.
    if name not in ATTENTION and name not in AttentionInterface().valid_keys() and "/" not in name:
        raise UserError(
            f"model.attn_implementation={name}: transformers knows no such attention. "
            f"Accepted: {', '.join(taken)}; null is transformers' choice."
        )
