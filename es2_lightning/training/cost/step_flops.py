"""FLOPs of a whole training step in closed form, without its optimizer (which multiplies none)."""

from __future__ import annotations

from collections.abc import Sequence

from es2_lightning.training.cost.closed_form import (
    BlockWork,
    forward_flops,
    head_product,
    pass_flops,
)
from es2_lightning.training.cost.flops import FlopCount
from es2_lightning.training.cost.shapes import ModelShape
from es2_lightning.training.cost.step_plan import LoraShape, RowShape, StepPlan


def step_flops(
    shape: ModelShape,
    rows: Sequence[RowShape],
    plan: StepPlan,
    lora: LoraShape | None,
    *,
    trains_head: bool = False,
) -> FlopCount:
    """Of one batch: the tuned model forward and back, the reference, the head.

    Args:
        shape: Of the model.
        rows: All prompts of the batch.
        plan: How the step is computed.
        lora: What trains; None: all weights.
        trains_head: Whether the head's weight gets a gradient, as it does where all weights train.
    """
    total = FlopCount()
    parts = plan.parts(rows)
    for part in parts:
        works = block_works(part, plan, depth=shape.num_layers)
        tuned = pass_flops(shape, works, lora, checkpointing=plan.checkpointing)
        again = tuned.forward if len(parts) > 1 else 0
        reference = 0
        compared = [row for row in part if row.outputs]
        if plan.reference != "cached" and compared:
            works = block_works(compared, plan, depth=shape.num_layers)
            reference = sum(forward_flops(shape, work) for work in works)
        products = 2 + plan.needs_reference_logits + trains_head
        total += FlopCount(
            forward=tuned.forward + reference,
            backward=tuned.backward + again,
            head=products * head_product(shape, output_positions(part, plan)),
        )
    return total


def block_works(rows: Sequence[RowShape], plan: StepPlan, *, depth: int) -> list[BlockWork]:
    """What each block is given in a pass of these rows, from the first to the last that runs."""
    if plan.truncate:
        depth = max(row.depth for row in rows)
    works = []
    for block in range(1, depth + 1):
        alive = [row for row in rows if row.depth >= block or not plan.truncate]
        works.append(_work(alive, plan))
    return works


def output_positions(rows: Sequence[RowShape], plan: StepPlan) -> int:
    """Positions that pass the head: those of a shared prefix once."""
    shared = max((row.outputs - (row.tokens - plan.prefix) for row in rows), default=0)
    own = sum(min(row.outputs, row.tokens - plan.prefix) for row in rows)
    return own + max(shared, 0)


def _work(rows: Sequence[RowShape], plan: StepPlan) -> BlockWork:
    prefix = plan.prefix
    own = [row.tokens - prefix for row in rows]
    longest = max(own)
    if plan.layout == "off":
        assert not prefix, "a shared prefix needs packing"
        return BlockWork(longest * len(own), longest * longest * len(own))
    tokens = prefix + sum(own)
    if plan.layout == "grid":
        pairs = prefix * prefix + len(own) * longest * (prefix + longest)
    elif plan.layout == "block_mask":
        pairs = tokens * tokens
    else:
        pairs = prefix * prefix + sum(n * (prefix + n) for n in own)
    return BlockWork(tokens, pairs)
