"""The sizes of a decoder-only transformer: all that FLOPs and bytes depend on.

Light to import: neither torch nor transformers.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig

NOT_GATED = frozenset(
    [
        "bloom",
        "codegen",
        "falcon",
        "gpt2",
        "gpt_bigcode",
        "gpt_neo",
        "gpt_neox",
        "gptj",
        "mpt",
        "nemotron",
        "opt",
        "persimmon",
        "phi",
        "starcoder2",
        "xglm",
    ]
)
"""Architectures whose MLP is two matrices; all others have a gate beside them."""

FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "query_key_value": ("q_proj", "k_proj", "v_proj"),
    "c_attn": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "dense": ("o_proj",),
    "out_proj": ("o_proj",),
    "c_proj": ("o_proj", "down_proj"),
    "c_fc": ("up_proj",),
    "fc1": ("up_proj",),
    "fc2": ("down_proj",),
    "dense_h_to_4h": ("up_proj",),
    "dense_4h_to_h": ("down_proj",),
}
"""What other architectures call Llama's linear modules, one for several of them where they fuse."""


@dataclass(frozen=True)
class LinearShape:
    """A linear module of a block, in Llama's words.

    Attributes:
        name: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj or down_proj.
        d_in: Width of what enters.
        d_out: Width of what leaves.
        copies: How many of it are stored: the number of experts, where it belongs to one.
        active: How many of these each token passes.
    """

    name: str
    d_in: int
    d_out: int
    copies: int = 1
    active: int = 1


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A decoder-only transformer with blocks like Llama's.

    Attributes:
        num_layers: L.
        hidden_size: D.
        intermediate_size: Inner width of the MLP, or of one expert.
        num_attention_heads: Query heads.
        num_key_value_heads: Key and value heads.
        head_dim: Width of a head.
        vocab_size: V.
        tie_word_embeddings: The head is the embedding matrix.
        gated_mlp: Three matrices in the MLP instead of two.
        num_experts: 1: no mixture.
        experts_per_token: Which share of them a token passes.
    """

    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    tie_word_embeddings: bool = False
    gated_mlp: bool = True
    num_experts: int = 1
    experts_per_token: int = 1

    @cached_property
    def linears(self) -> tuple[LinearShape, ...]:
        """The linear modules of a block, in the order in which they run."""
        width, inner = self.hidden_size, self.intermediate_size
        queries = self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        experts = (self.num_experts, self.experts_per_token)
        return (
            LinearShape("q_proj", width, queries),
            LinearShape("k_proj", width, keys),
            LinearShape("v_proj", width, keys),
            LinearShape("o_proj", queries, width),
            *([LinearShape("gate_proj", width, inner, *experts)] if self.gated_mlp else []),
            LinearShape("up_proj", width, inner, *experts),
            LinearShape("down_proj", inner, width, *experts),
        )

    @property
    def block_parameters(self) -> int:
        """Of one block: matrices, a router where there are experts, and two norms; no biases."""
        matrices = sum(m.d_in * m.d_out * m.copies for m in self.linears)
        return matrices + self._router + 2 * self.hidden_size

    @property
    def active_block_parameters(self) -> int:
        """Of one block, those that one token meets."""
        matrices = sum(m.d_in * m.d_out * m.active for m in self.linears)
        return matrices + self._router + 2 * self.hidden_size

    @property
    def head_parameters(self) -> int:
        """V · D, stored once more than the embeddings unless tied."""
        return self.vocab_size * self.hidden_size

    @property
    def parameters(self) -> int:
        """All that are stored. Exact for Llama and Mixtral; others have biases or more norms."""
        matrices = 1 if self.tie_word_embeddings else 2
        return (
            self.num_layers * self.block_parameters
            + matrices * self.head_parameters
            + self.hidden_size
        )

    @property
    def active_parameters(self) -> int:
        """Those that one token meets: `parameters` without the experts that it passes by."""
        passed_by = self.block_parameters - self.active_block_parameters
        return self.parameters - self.num_layers * passed_by

    def adapted(self, target_modules: str | Collection[str]) -> frozenset[str]:
        """Which linear modules of a block LoRA's targets name, in Llama's words.

        Args:
            target_modules: As peft takes them: `all-linear`, a pattern, or names. Names of other
                architectures are translated; where none is known, all are assumed.
        """
        names = [m.name for m in self.linears]
        if target_modules == "all-linear":
            return frozenset(names)
        if isinstance(target_modules, str):
            told = {w for w in (*names, *FUSED) if _matches(target_modules, w)}
        else:
            told = {str(target).rsplit(".", 1)[-1] for target in target_modules}
        found = {name for word in told for name in FUSED.get(word, (word,)) if name in names}
        return frozenset(found or names)

    @property
    def _router(self) -> int:
        return self.hidden_size * self.num_experts if self.num_experts > 1 else 0


def _matches(pattern: str, name: str) -> bool:
    parents = ("model.layers.0.self_attn.", "model.layers.0.mlp.", "")
    return any(re.fullmatch(pattern, parent + name) for parent in parents)


def shape_of(config: PretrainedConfig) -> ModelShape:
    """The shape of a transformers model, from its configuration alone.

    Blocks that are not Llama's (extra norms, biases, shared experts, layers of several kinds) are
    taken for Llama's.
    """
    text: Any = config.get_text_config(decoder=True)
    heads = text.num_attention_heads
    experts = _first(text, "num_local_experts", "num_experts", "n_routed_experts") or 1
    inner = _first(text, *(["moe_intermediate_size"] if experts > 1 else []))
    inner = inner or _first(text, "intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
    return ModelShape(
        num_layers=text.num_hidden_layers,
        hidden_size=text.hidden_size,
        intermediate_size=inner or 4 * text.hidden_size,
        num_attention_heads=heads,
        num_key_value_heads=_first(text, "num_key_value_heads") or heads,
        head_dim=_first(text, "head_dim") or text.hidden_size // heads,
        vocab_size=text.vocab_size,
        tie_word_embeddings=bool(getattr(text, "tie_word_embeddings", False)),
        gated_mlp=text.model_type not in NOT_GATED,
        num_experts=experts,
        experts_per_token=_first(text, "num_experts_per_tok", "experts_per_token") or 1,
    )


def _first(config: Any, *names: str) -> int | None:
    """The first of these values that the configuration has and that is not None."""
    return next((int(v) for n in names if (v := getattr(config, n, None)) is not None), None)
