"""Where a causal LM keeps its blocks and final norm, and how its layers are numbered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from es2_lightning.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class DecoderStructure:
    """The parts of a decoder-only causal LM.

    Attributes:
        blocks: Block l is `blocks[l - 1]`.
        final_norm: What stands between block L and the head.
    """

    blocks: nn.ModuleList
    final_norm: nn.Module


def num_layers(config: PretrainedConfig) -> int:
    """L, from a model's configuration alone."""
    return int(config.get_text_config().num_hidden_layers)


def find_structure(model: nn.Module) -> DecoderStructure:
    """Find the parts by structure: a ModuleList of L blocks, and the norm that stands beside it.

    Args:
        model: A transformers causal LM, or a peft model around one.

    Raises:
        UserError: The model has another shape.
    """
    causal_lm: Any = model
    if hasattr(model, "get_base_model"):
        causal_lm = causal_lm.get_base_model()
    depth = num_layers(causal_lm.config)
    for decoder in causal_lm.modules():
        children = list(decoder.children())
        blocks = [m for m in children if isinstance(m, nn.ModuleList) and len(m) == depth]
        norms = [m for m in children if "norm" in type(m).__name__.lower()]
        if len(blocks) == 1 and norms:
            return DecoderStructure(blocks=blocks[0], final_norm=norms[-1])
    raise UserError(
        f"{type(causal_lm).__name__}: no module holds {depth} blocks and a final norm; "
        "a decoder-only causal LM is needed"
    )


def resolve_layer(layer: int, depth: int, *, key: str = "layers") -> int:
    """A layer number as 0 … L. Negative ones count from the end.

    Args:
        layer: The number as the user gave it.
        depth: L, the number of blocks.
        key: The config key to name in the error.

    Raises:
        UserError: Out of range.
    """
    if not -depth <= layer <= depth:
        raise UserError(
            f"{key}: layer {layer} is out of range; the model has {depth} layers: accepted are "
            f"1 … {depth}, -1 … -{depth} from the end, and 0 for the input embeddings"
        )
    return layer + depth + 1 if layer < 0 else layer
