"""What a reference's outputs depend on beside a row's tokens: a cache is good for these alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import transformers

from es2_lightning.backbone.chat import PLAIN_FORMAT
from es2_lightning.backbone.fingerprint import weights_fingerprint
from es2_lightning.backbone.structure import causal_lm_of

if TYPE_CHECKING:
    from es2_lightning.backbone.chat_model import ChatModel

Fingerprint = Mapping[str, str]
"""What the outputs depend on: its name, a config key where there is one, and its value."""

_NO_MATTER = {
    "_name_or_path",
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
"""Words of a model's configuration that do not reach its outputs, or are components themselves."""


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
    causal_lm, renderer = causal_lm_of(chat_model.model), chat_model.renderer
    template = getattr(chat_model.tokenizer, "chat_template", None) or PLAIN_FORMAT
    date = renderer.template_date
    return {
        "model's weights": weights_fingerprint(chat_model.model, adapter=False),
        "model's config.json": _digest(_configuration(causal_lm.config)),
        "model.dtype": _word(causal_lm.dtype),
        "model.attn_implementation": str(causal_lm.config._attn_implementation),
        "tokenizer": _digest(_tokenizer(chat_model.tokenizer)),
        "chat template": _digest(template),
        "model.chat_template_kwargs": json.dumps(renderer.chat_template_kwargs, sort_keys=True),
        "model.template_date": "null" if date is None else date.isoformat(),
        "model.system_prompt": json.dumps(renderer.system_prompt, ensure_ascii=False),
        "model.max_length": str(renderer.max_length),
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
    return _digest(dict(fingerprint))


def differences(there: Fingerprint, here: Fingerprint) -> list[str]:
    """Each component that differs, in words."""
    names = [*here, *(name for name in there if name not in here)]
    return [
        f"{name} ({there.get(name, 'nothing')} there, {here.get(name, 'nothing')} here)"
        for name in names
        if there.get(name) != here.get(name)
    ]


def _configuration(config: Any) -> dict[str, Any]:
    """A model's configuration as far as it reaches the outputs; inner ones as well."""

    def cleaned(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: cleaned(v) for k, v in value.items() if k not in _NO_MATTER}
        return value

    found: dict[str, Any] = cleaned(config.to_dict())
    return found


def _tokenizer(tokenizer: Any) -> Any:
    """What makes tokens of text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return [sorted(tokenizer.get_vocab().items()), tokenizer.special_tokens_map]
    # The last call's padding and truncation are no part of it.
    return {
        k: v for k, v in json.loads(backend.to_str()).items() if k not in ("padding", "truncation")
    }


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
