"""What of a user's model settings cannot work: told from the configuration, before any weights."""

from __future__ import annotations

import importlib.util
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


_HOLD = "model.reference_cache.hold"
_HIDDEN_STATES = f"Accepted: {_HOLD}=hidden_states."


def check_settings(settings: ModelSettings, config: PretrainedConfig) -> None:
    """Refuse what cannot be loaded, or not trained, as the settings say.

    Raises:
        UserError: With what would be accepted.
    """
    for knob in ("size", "version"):
        if getattr(settings, knob) is not None and not settings.variants:
            raise UserError(
                f"model.{knob}={getattr(settings, knob)}: this model preset comes in one. "
                "Accepted: model.name_or_path=<another Hub id or folder>."
            )
    if settings.template_date is not None:
        try:
            date.fromisoformat(settings.template_date)
        except ValueError as error:
            raise UserError(
                f"model.template_date={settings.template_date}: {error}. Accepted: a date such as "
                "2024-07-26, or null for today."
            ) from error
    _check_weights(settings)
    _check_quantization(settings, config)
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
    if settings.mode == "full" and settings.reference == "adapter":
        raise UserError(
            "model.mode=full with model.reference=adapter: an adapter's reference is the model "
            "without it. Accepted with model.mode=full: model.reference=copy or cached."
        )
    if settings.reference == "cached":
        _check_cache(settings)
    if settings.mode == "full" and settings.dtype == "float16":
        raise UserError(
            "model.mode=full with model.dtype=float16: small gradients and steps vanish in "
            "float16. Accepted: model.dtype=float32, with trainer.precision=bf16-mixed for speed."
        )
    if settings.mode == "qlora" and settings.reference == "copy":
        raise UserError(
            "model.mode=qlora with model.reference=copy: 4-bit weights are not copied. "
            "Accepted: model.reference=adapter, the same weights without the adapter, or cached."
        )
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
                f"{_HOLD}=statistics: the head of {settings.name_or_path} {obstacle}, and "
                f"statistics say enough for a frozen linear head only. {_HIDDEN_STATES}"
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


def _check_cache(settings: ModelSettings) -> None:
    cache = settings.reference_cache
    if cache.hold == "statistics":
        if settings.mode == "full":
            raise UserError(
                f"{_HOLD}=statistics with model.mode=full: the head trains, and statistics say "
                f"enough for a frozen head only. {_HIDDEN_STATES}"
            )
        if cache.dtype not in (None, "float32"):
            raise UserError(
                f"{_HOLD}=statistics with model.reference_cache.dtype={cache.dtype}: a KL near 0 "
                "is a small difference of statistics, which are held in float32. Accepted: "
                "model.reference_cache.dtype=null."
            )
    if cache.folder is not None:
        folder = Path(cache.folder).expanduser()
        if folder.exists() and not folder.is_dir():
            raise UserError(
                f"model.reference_cache.folder={cache.folder}: this is a file. Accepted: a folder, "
                "which is made where it is missing, or null to hold the cache in memory."
            )


def _check_weights(settings: ModelSettings) -> None:
    folder = Path(settings.name_or_path).expanduser()
    if not folder.is_dir():
        return  # A Hub id: told when it loads.
    wanted = "*.safetensors" if settings.use_safetensors else "*.bin"
    if any(folder.glob(wanted)):
        return
    if settings.use_safetensors and any(folder.glob("*.bin")):
        raise UserError(
            f"model.name_or_path={folder}: its weights are pickled (*.bin), not safetensors, and "
            "a pickle can run code. If you trust their source: model.use_safetensors=false."
        )
    raise UserError(
        f"model.name_or_path={folder}: there are no weights in it. Accepted: a folder with {wanted}"
        + ("" if settings.use_safetensors else ", or model.use_safetensors=true")
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
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            "model.mode=qlora: 4-bit weights need a CUDA device, and this machine has none. "
            "Accepted here: model.mode=lora, with step.micro_batch and "
            "model.gradient_checkpointing=true for memory."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            "model.mode=qlora needs bitsandbytes: pip install 'es2-lightning[gpu]'. "
            "Without it: model.mode=lora."
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
    if name.startswith("flash_attention"):
        if settings.dtype == "float32":
            raise UserError(
                f"model.attn_implementation={name} with model.dtype=float32: flash attention "
                "computes in 16 bits. Accepted: model.dtype=bfloat16, or sdpa."
            )
        import torch

        if not torch.cuda.is_available():
            raise UserError(
                f"model.attn_implementation={name}: flash attention needs a CUDA device, and this "
                "machine has none. Accepted here: null, sdpa or eager, as the model takes them."
            )
