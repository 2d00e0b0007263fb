"""What a training step computes, as sizes: its prompts, what trains, and which ways are taken.

Light to import: neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from es2_lightning.training.cost.shapes import ModelShape

Layout = Literal["off", "grid", "block_mask", "exact"]
"""How prompts lie in a pass. `off`: padded to the longest. `grid`: no padding in linear modules,
attention padded to the longest. `block_mask`: one row, attention masked by blocks. `exact`: no
padding anywhere, as kernels for variable lengths do it."""


@dataclass(frozen=True)
class RowShape:
    """One prompt of a batch, alone or with its response.

    Attributes:
        tokens: Those that matter, a shared prefix included, padding not.
        depth: Blocks that it goes through, where nothing is computed in vain.
        outputs: Positions whose next-token distribution is compared with the reference's; its last
            ones.
    """

    tokens: int
    depth: int
    outputs: int = 0


def batch_rows(
    harmless: Sequence[int],
    harmful: Sequence[int],
    *,
    layer: int,
    num_layers: int,
    outputs: int | None = None,
) -> tuple[RowShape, ...]:
    """The rows of a batch: harmless prompts through all blocks, harmful ones through `layer`.

    Args:
        harmless: Tokens of each harmless prompt.
        harmful: Tokens of each harmful prompt.
        layer: The deepest layer that is separated, 1 … L.
        num_layers: L.
        outputs: Positions of a harmless prompt at which the KL is taken, counted from its end, such
            as 1 for its last token; None: all.
    """
    return (
        *(RowShape(n, num_layers, n if outputs is None else min(outputs, n)) for n in harmless),
        *(RowShape(n, layer) for n in harmful),
    )


@dataclass(frozen=True)
class LoraShape:
    """A LoRA adapter.

    Attributes:
        r: Rank.
        adapted: Which linear modules of each block have it, as `ModelShape.adapted` names them.
        dropout: Whether its input is dropped out.
    """

    r: int
    adapted: frozenset[str]
    dropout: bool = False

    def parameters(self, shape: ModelShape) -> int:
        """Of all blocks; an adapted expert has an adapter of its own."""
        widths = ((m.d_in + m.d_out) * m.copies for m in shape.linears if m.name in self.adapted)
        return shape.num_layers * self.r * sum(widths)


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """Which ways a step takes.

    Attributes:
        truncate: Rows stop at their own depth; otherwise all go through all blocks.
        layout: How prompts lie in a pass.
        prefix: Tokens that all prompts begin with and that are computed once; 0: none.
        reference: `adapter` and `copy` run the reference in each step, `cached` does not.
        hold: What is cached: `hidden_states`, from which the reference's logits are made again, or
            `statistics`, which need none. Without a cache it is the hidden states.
        kl_chunk: Positions that pass through the head at a time; None: all at once.
        micro_batch: The most prompts in one pass; None: all. More passes than one are computed
            again in the backward pass, without the head.
        checkpointing: Blocks are computed again in the backward pass.
        lean_norms: Norms are computed again in the backward pass instead of keeping what they saw.
    """

    truncate: bool = True
    layout: Layout = "grid"
    prefix: int = 0
    reference: Literal["adapter", "copy", "cached"] = "adapter"
    hold: Literal["hidden_states", "statistics"] = "hidden_states"
    kl_chunk: int | None = 256
    micro_batch: int | None = None
    checkpointing: bool = False
    lean_norms: bool = False

    @property
    def needs_reference_logits(self) -> bool:
        """Whether the reference's part of the head is computed in each step."""
        return not (self.reference == "cached" and self.hold == "statistics")

    def parts(self, rows: Sequence[RowShape]) -> list[tuple[RowShape, ...]]:
        """The rows of each pass: dealt out in order, so that each has its share of both classes."""
        count = 1 if self.micro_batch is None else -(-len(rows) // self.micro_batch)
        return [tuple(rows[k::count]) for k in range(count)]
