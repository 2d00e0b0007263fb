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
class QuantizationSettings:
    """transformers' `BitsAndBytesConfig` in its own words; for `mode: qlora`."""

    bnb_4bit_quant_type: str = field(default="nf4", metadata=one_of("nf4", "fp4"))
    bnb_4bit_use_double_quant: bool = True
    bnb_4bit_compute_dtype: str | None = field(
        default=None, metadata=one_of("float32", "bfloat16", "float16")
    )
    """null: model.dtype."""


@dataclass
class StructureSettings:
    """Where an exotic model keeps its parts, as dotted paths from the causal LM; null: found."""

    blocks: str | None = None
    """The ModuleList of its blocks, such as model.layers."""
    final_norm: str | None = None
    """What stands between the last block and the head, such as model.norm."""
    head: str | None = None
    """What makes logits of the final norm's output, such as lm_head."""


@dataclass
class ReferenceCacheSettings:
    """For `reference: cached`."""

    hold: str = field(default="hidden_states", metadata=one_of("hidden_states", "statistics"))
    """What is held of each position whose KL is taken: the reference's final hidden state, or
    Σ p log p and Wᵀp of its next-token distribution p. Statistics spare a step the reference's
    logits; they hold for a frozen, linear head W without soft-capping."""
    folder: str | None = None
    """Where it is held, memory-mapped; other runs with the same model and settings use it too, and
    a build that was killed goes on. null: in memory, for this process."""
    dtype: str | None = field(default=None, metadata=one_of("float32", "bfloat16", "float16"))
    """Of hidden states; null: as they are computed. A smaller one than model.dtype rounds the
    reference."""


@dataclass
class ModelSettings:
    """Which causal LM, how it is loaded, and what of it is trained."""

    name_or_path: str
    """A Hub id or a local folder in the Hub's layout."""
    revision: str | None = None
    """A commit of the Hub's repository; null: its newest."""
    size: str | None = None
    """Of a preset that comes in several sizes: which."""
    version: str | None = None
    """Of a preset that comes in several versions: which."""
    variants: dict[str, Any] = field(default_factory=dict)
    """What a preset knows of each of its sizes or versions; read by `${variant:<key>}`."""
    model_type: str | None = None
    """The architecture that a preset is for, as config.json names it; another one is warned of."""
    num_hidden_layers: int | None = field(default=None, metadata=at_least(1))
    """How many layers it has, where that is known before config.json is read; another number is
    warned of."""
    emergence_layer: int | None = None
    """The paper's emergence layer, where it is known; null: found by probes."""
    dtype: str = field(default="float32", metadata=one_of("float32", "bfloat16", "float16"))
    attn_implementation: str | None = None
    """sdpa, eager, flash_attention_2, flex_attention …; null: transformers' choice, which is sdpa
    where the architecture takes it."""
    gradient_checkpointing: bool = False
    """Recompute each block in the backward pass (non-re-entrant): less memory, more time."""
    trust_remote_code: bool = False
    """Run the Python code that a Hub repository brings."""
    use_safetensors: bool = True
    """false: read pickled weights, which can run code."""
    max_length: int = field(default=512, metadata=at_least(8))
    """The most tokens of a prompt with its response; longer ones are dropped and counted."""
    system_prompt: str | None = None
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    """Handed to the chat template, such as enable_thinking."""
    template_date: str | None = "2024-07-26"
    """What chat templates that tell today's date tell instead, YYYY-MM-DD, so that a prompt is the
    same every day; null: today's."""
    mode: str = field(default="lora", metadata=one_of("lora", "dora", "qlora", "full"))
    """What trains: a LoRA adapter, one with magnitudes of its own (DoRA), one on 4-bit weights, or
    all weights."""
    reference: str = field(default="cached", metadata=one_of("adapter", "copy", "cached"))
    """The frozen reference: the same weights with the adapter off; a second, frozen model; or its
    outputs, computed once before training for the prompts that the schedule can come to."""
    reference_cache: ReferenceCacheSettings = field(default_factory=ReferenceCacheSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    quantization: QuantizationSettings = field(default_factory=QuantizationSettings)
    structure: StructureSettings = field(default_factory=StructureSettings)
