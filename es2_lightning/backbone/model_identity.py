"""What a model is, beside what is trained of it: by name, so that a difference can be told.

Two models with one identity give the same outputs for the same prompts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from es2_lightning.backbone.chat import PLAIN_FORMAT
from es2_lightning.backbone.fingerprint import weights_fingerprint
from es2_lightning.backbone.structure import causal_lm_of

if TYPE_CHECKING:
    from es2_lightning.backbone.chat_model import ChatModel

Identity = Mapping[str, str]
"""The name of each component, a config key where there is one, and its value."""

_NO_MATTER = {
    "_name_or_path",
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
"""Words of a model's configuration that do not reach its outputs, or are components themselves."""


def model_identity(chat_model: ChatModel) -> dict[str, str]:
    """The base model, and how prompts become tokens for it.

    Args:
        chat_model: The base model with the weights that it was loaded with, or one around it with
            an adapter, which does not count.
    """
    causal_lm, renderer = causal_lm_of(chat_model.model), chat_model.renderer
    template = getattr(chat_model.tokenizer, "chat_template", None) or PLAIN_FORMAT
    date = renderer.told_date
    return {
        "model's weights": weights_fingerprint(chat_model.model, adapter=False),
        "model's config.json": digest(_configuration(causal_lm.config)),
        "model.dtype": str(causal_lm.dtype).removeprefix("torch."),
        "tokenizer": digest(_tokenizer(chat_model.tokenizer)),
        "chat template": digest(template),
        "model.chat_template_kwargs": json.dumps(renderer.chat_template_kwargs, sort_keys=True),
        "model.template_date": "null" if date is None else date.isoformat(),
        "model.system_prompt": json.dumps(renderer.system_prompt, ensure_ascii=False),
        "model.max_length": str(renderer.max_length),
    }


def differences(there: Identity, here: Identity) -> list[str]:
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


def digest(value: Any) -> str:
    """16 hex digits of a plain value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
