"""FLOPs of blocks in closed form, as `count_flops` counts them: matrix products and attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from es2_lightning.training.cost.flops import FlopCount
from es2_lightning.training.cost.shapes import LinearShape, ModelShape
from es2_lightning.training.cost.step_plan import LoraShape


@dataclass(frozen=True)
class BlockWork:
    """What one block is given in one pass.

    Attributes:
        tokens: Positions that pass its linear modules.
        pairs: Queries x keys, summed over the rectangles that its attention computes.
        unread: Positions among them that pass k_proj and v_proj alone, since nobody reads what the
            block makes of them.
        queries: Positions that attention is given, what it pads included.
        keys: The same of keys and values.
    """

    tokens: int
    pairs: int
    unread: int = 0
    queries: int = 0
    keys: int = 0

    def through(self, module: LinearShape) -> int:
        """Positions that pass a module."""
        return self.tokens - (0 if module.name in ("k_proj", "v_proj") else self.unread)


def forward_flops(shape: ModelShape, work: BlockWork, lora: LoraShape | None = None) -> int:
    """Of one block, with or without an adapter."""
    linear = sum(
        _linear(m, work.through(m)) + _adapter(m, work.through(m), lora) for m in shape.linears
    )
    return linear + _router(shape, work.tokens - work.unread) + 2 * _attention(shape, work.pairs)


def backward_flops(
    shape: ModelShape, works: Sequence[BlockWork], lora: LoraShape | None
) -> list[int]:
    """Of each block, from the first to the last.

    With LoRA, weights get no gradient, and nothing below the first adapted module gets one: its
    input is frozen. Without (all weights train) everything gets one.
    """
    flops = []
    wanted = lora is None  # A gradient of what enters the block.
    for work in works:
        block, wanted = _block_backward(shape, work, lora, wanted)
        flops.append(block)
    return flops


def recomputed_flops(shape: ModelShape, work: BlockWork, lora: LoraShape | None) -> int:
    """What activation checkpointing computes again of a block.

    torch stops as soon as it has all that was saved: just before the block's last matrix product.
    """
    last = shape.linears[-1]
    if lora is not None and last.name in lora.adapted:
        left_out = 2 * work.through(last) * last.active * lora.r * last.d_out
    else:
        left_out = _linear(last, work.through(last))
    return forward_flops(shape, work, lora) - left_out


def pass_flops(
    shape: ModelShape,
    works: Sequence[BlockWork],
    lora: LoraShape | None,
    *,
    backward_depth: int | None = None,
    checkpointing: bool = False,
) -> FlopCount:
    """A pass through the first blocks and back.

    Args:
        shape: Of the model.
        works: What each block is given, from the first one.
        lora: What trains; None: all weights.
        backward_depth: How many of the blocks a gradient comes back through; None: all.
        checkpointing: Whether blocks are computed again in the backward pass.
    """
    back = works[:backward_depth]
    return FlopCount(
        forward=sum(forward_flops(shape, work, lora) for work in works),
        backward=sum(backward_flops(shape, back, lora))
        + checkpointing * sum(recomputed_flops(shape, work, lora) for work in back),
    )


def head_product(shape: ModelShape, positions: int) -> int:
    """One matrix product with the head's weight."""
    return 2 * positions * shape.hidden_size * shape.vocab_size


def _block_backward(
    shape: ModelShape, work: BlockWork, lora: LoraShape | None, wanted: bool
) -> tuple[int, bool]:
    """FLOPs, and whether what leaves the block depends on anything that trains."""
    adapted = frozenset(m.name for m in shape.linears) if lora is None else lora.adapted
    by_name = {m.name: m for m in shape.linears}

    def back(names: Sequence[str], wanted: bool) -> int:
        modules = [by_name[name] for name in names]
        return sum(_linear_backward(m, work.through(m), lora, wanted) for m in modules)

    projections, out = ("q_proj", "k_proj", "v_proj"), ("o_proj",)
    into = tuple(n for n in ("gate_proj", "up_proj") if n in by_name)
    flops = back(projections, wanted)
    of_attention = wanted or not adapted.isdisjoint(projections)
    flops += of_attention * 4 * _attention(shape, work.pairs)
    flops += back(out, of_attention)
    between = of_attention or "o_proj" in adapted
    flops += back(into, between) + between * _router(shape, work.tokens - work.unread)
    inner = between or not adapted.isdisjoint(into)
    flops += back(("down_proj",), inner)
    return flops, inner or "down_proj" in adapted


def _linear_backward(module: LinearShape, tokens: int, lora: LoraShape | None, wanted: bool) -> int:
    if lora is None:
        return 2 * _linear(module, tokens)  # Of the input and of the weight.
    flops = _linear(module, tokens) if wanted else 0
    if module.name in lora.adapted:
        a, b = (2 * tokens * module.active * lora.r * d for d in (module.d_in, module.d_out))
        flops += 2 * b + (2 * a if wanted else a)
    return flops


def _linear(module: LinearShape, tokens: int) -> int:
    return 2 * tokens * module.d_in * module.d_out * module.active


def _adapter(module: LinearShape, tokens: int, lora: LoraShape | None) -> int:
    if lora is None or module.name not in lora.adapted:
        return 0
    return 2 * tokens * module.active * lora.r * (module.d_in + module.d_out)


def _router(shape: ModelShape, tokens: int) -> int:
    return 2 * tokens * shape.hidden_size * shape.num_experts if shape.num_experts > 1 else 0


def _attention(shape: ModelShape, pairs: int) -> int:
    """One of attention's matrix products, over all heads."""
    return 2 * pairs * shape.num_attention_heads * shape.head_dim
