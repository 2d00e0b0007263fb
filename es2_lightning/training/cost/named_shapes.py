"""Shapes by name, so that a step's cost can be told without weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from es2_lightning.training.cost.shapes import ModelShape

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def _small(vocab_size: int) -> ModelShape:
    """12 layers that a CPU trains in seconds."""
    return ModelShape(
        num_layers=12,
        hidden_size=512,
        intermediate_size=1408,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        vocab_size=vocab_size,
    )


NAMED_SHAPES: dict[str, ModelShape] = {
    "small12_32k": _small(32_000),
    "small12_128k": _small(128_256),
    "llama3_8b": ModelShape(
        num_layers=32,
        hidden_size=4096,
        intermediate_size=14_336,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=128_256,
    ),
    "llama2_7b": ModelShape(
        num_layers=32,
        hidden_size=4096,
        intermediate_size=11_008,
        num_attention_heads=32,
        num_key_value_heads=32,
        head_dim=128,
        vocab_size=32_000,
    ),
    "mistral_7b": ModelShape(
        num_layers=32,
        hidden_size=4096,
        intermediate_size=14_336,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=32_768,
    ),
    "qwen2_5_7b": ModelShape(
        num_layers=28,
        hidden_size=3584,
        intermediate_size=18_944,
        num_attention_heads=28,
        num_key_value_heads=4,
        head_dim=128,
        vocab_size=152_064,
    ),
    "mixtral_8x7b": ModelShape(
        num_layers=32,
        hidden_size=4096,
        intermediate_size=14_336,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=32_000,
        num_experts=8,
        experts_per_token=2,
    ),
    "llama3_70b": ModelShape(
        num_layers=80,
        hidden_size=8192,
        intermediate_size=28_672,
        num_attention_heads=64,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=128_256,
    ),
}
"""From the models' config.json files on the Hub (meta-llama/Meta-Llama-3-8B and -70B,
meta-llama/Llama-2-7b-hf, mistralai/Mistral-7B-v0.3, Qwen/Qwen2.5-7B, mistralai/Mixtral-8x7B-v0.1);
the small ones are this project's."""


def to_config(shape: ModelShape, *, max_position_embeddings: int = 8192) -> PretrainedConfig:
    """A transformers configuration of that shape: Llama's, or Mixtral's with experts.

    Built on meta it takes no memory: `with torch.device("meta"):
    AutoModelForCausalLM.from_config(to_config(shape))`.
    """
    from transformers import LlamaConfig, MixtralConfig

    assert shape.gated_mlp, "Llama's MLP is gated"
    values: dict[str, Any] = {
        "num_hidden_layers": shape.num_layers,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab_size,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "max_position_embeddings": max_position_embeddings,
    }
    if shape.num_experts > 1:
        return MixtralConfig(
            **values,
            num_local_experts=shape.num_experts,
            num_experts_per_tok=shape.experts_per_token,
        )
    return LlamaConfig(**values)
