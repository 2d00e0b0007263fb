"""What a reference's outputs depend on beside a row's tokens: a cache is good for these alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import transformers

from es2_lightning.backbone.model_identity import Identity, digest, model_identity
from es2_lightning.backbone.structure import causal_lm_of

if TYPE_CHECKING:
    from es2_lightning.backbone.chat_model import ChatModel

Fingerprint = Identity
"""What the outputs depend on: its name, a config key where there is one, and its value."""


def cache_fingerprint(
    chat_model: ChatModel,
    *,
    hold: str,
    dtype: str | None,
    packing: str,
    precision: str,
) -> dict[str, str]:
    """Everything that outputs of the base model depend on, by name.

    The data is not among it: each row is found by its own tokens, so another data set adds rows.

    Args:
        chat_model: The base model, or one around it with an adapter, which does not count.
        hold: What is held of each output.
        dtype: Of what is held; None: as it is computed.
        packing: How the passes are laid out.
        precision: The trainer's, such as bf16-mixed.
    """
    config = causal_lm_of(chat_model.model).config
    date = chat_model.renderer.template_date
    return {
        **model_identity(chat_model),
        # Another day's rows have other tokens, and are added to this day's.
        "model.template_date": "null" if date is None else date.isoformat(),
        "model.attn_implementation": str(config._attn_implementation),
        "model.reference_cache.hold": hold,
        "model.reference_cache.dtype": "null" if dtype is None else dtype,
        "step.packing": packing,
        "trainer.precision": precision,
        "precision of float32 products": torch.get_float32_matmul_precision(),
        "kind of device": chat_model.device.type,
        "torch": str(torch.__version__).partition("+")[0],
        "transformers": transformers.__version__,
    }


def fingerprint_digest(fingerprint: Fingerprint) -> str:
    """16 hex digits that are equal exactly where every component is."""
    return digest(dict(fingerprint))
