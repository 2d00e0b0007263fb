"""What of a user's model settings cannot work whatever the model; asked without transformers.

Importing that takes seconds, and a mistake that can be told without it should be told at once.
"""

from __future__ import annotations

import importlib.util
from datetime import date
from pathlib import Path

from es2_lightning.backbone.settings import ModelSettings
from es2_lightning.errors import UserError

HOLD = "model.reference_cache.hold"
HIDDEN_STATES = f"Accepted: {HOLD}=hidden_states."


def check_values(settings: ModelSettings) -> None:
    """Refuse what cannot be loaded.

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
    if _is_flash(settings.attn_implementation) and settings.dtype == "float32":
        raise UserError(
            f"model.attn_implementation={settings.attn_implementation} with model.dtype=float32: "
            "flash attention computes in 16 bits. Accepted: model.dtype=bfloat16, or sdpa."
        )


def check_mode(settings: ModelSettings) -> None:
    """Refuse modes, references and precisions that do not train together.

    Raises:
        UserError: With what would be accepted.
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


def check_gpu(settings: ModelSettings) -> None:
    """Refuse what needs a CUDA device, or a library for one, where it is not there.

    Imports torch where it must ask that.

    Raises:
        UserError: With what would be accepted.
    """
    flash = _is_flash(settings.attn_implementation)
    if settings.mode != "qlora" and not flash:
        return
    import torch

    has_gpu = torch.cuda.is_available()
    if flash and not has_gpu:
        raise UserError(
            f"model.attn_implementation={settings.attn_implementation}: flash attention needs a "
            "CUDA device, and this machine has none. Accepted here: null, sdpa or eager, as the "
            "model takes them."
        )
    if settings.mode == "qlora" and not has_gpu:
        raise UserError(
            "model.mode=qlora: 4-bit weights need a CUDA device, and this machine has none. "
            "Accepted here: model.mode=lora, with step.micro_batch and "
            "model.gradient_checkpointing=true for memory."
        )
    if settings.mode == "qlora" and importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            "model.mode=qlora needs bitsandbytes: pip install 'es2-lightning[gpu]'. "
            "Without it: model.mode=lora."
        )


def _is_flash(attn_implementation: str | None) -> bool:
    return attn_implementation is not None and attn_implementation.startswith("flash_attention")


def _check_cache(settings: ModelSettings) -> None:
    cache = settings.reference_cache
    if cache.hold == "statistics":
        if settings.mode == "full":
            raise UserError(
                f"{HOLD}=statistics with model.mode=full: the head trains, and statistics say "
                f"enough for a frozen head only. {HIDDEN_STATES}"
            )
        if cache.dtype not in (None, "float32"):
            raise UserError(
                f"{HOLD}=statistics with model.reference_cache.dtype={cache.dtype}: a KL near 0 "
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
