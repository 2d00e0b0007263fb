"""What a user sets about the model; light to import, so that config errors answer at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from es2_lightning.ranges import at_least, between, one_of


@dataclass
class LoraSettings:
    """peft's own words; the defaults are the paper's (Table 5)."""

    r: int = field(default=8, metadata=at_least(1))
    """Rank."""
    lora_alpha: int = field(default=16, metadata=at_least(1))
    lora_dropout: float = field(default=0.05, metadata=between(0, 0.999))
    target_modules: Any = "all-linear"
    """Module names, a pattern, or `all-linear`. The paper does not say."""


@dataclass
class ModelSettings:
    """Which causal LM, how it is loaded, and what of it is trained."""

    name_or_path: str
    """A Hub id or a local folder in the Hub's layout."""
    revision: str | None = None
    dtype: str = field(default="float32", metadata=one_of("float32", "bfloat16", "float16"))
    attn_implementation: str = "sdpa"
    trust_remote_code: bool = False
    max_length: int = field(default=512, metadata=at_least(8))
    """The most tokens of a prompt with its response; longer ones are dropped and counted."""
    system_prompt: str | None = None
    mode: str = field(default="lora", metadata=one_of("lora", "full"))
    """What trains: a LoRA adapter, or all weights."""
    reference: str = field(default="adapter", metadata=one_of("adapter", "copy"))
    """The frozen reference: the same weights with the adapter off, or a second, frozen model."""
    lora: LoraSettings = field(default_factory=LoraSettings)
