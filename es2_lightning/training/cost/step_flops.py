"""FLOPs of a whole training step in closed form, without its optimizer (which multiplies none)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from es2_lightning.backbone.packed_layout import like_lengths
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
        products = head_products(plan, trains_head=trains_head)
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
        works.append(_work(alive, rows, plan))
    return works


def output_positions(rows: Sequence[RowShape], plan: StepPlan) -> int:
    """Positions of a pass that go through the head: those of a shared prefix once."""
    prefix = plan.prefix if len(rows) > 1 else 0
    shared = max((row.outputs - (row.tokens - prefix) for row in rows), default=0)
    own = sum(min(row.outputs, row.tokens - prefix) for row in rows)
    return own + max(shared, 0)


def head_products(plan: StepPlan, *, trains_head: bool) -> int:
    """Matrix products with the head that each such position takes.

    A frozen head: the reference's logits, unless statistics tell all of it; the tuned model's; the
    gradient of its states. One that trains: its own gradient beside, and, where it is chunked, both
    models' logits once more.
    """
    if trains_head:
        return 4 if plan.kl_chunk is None else 6
    return 3 if plan.needs_reference_logits else 2


def _work(alive: Sequence[RowShape], rows: Sequence[RowShape], plan: StepPlan) -> BlockWork:
    """What a block is given of those rows of a pass that reach it."""
    if plan.layout == "off":
        # Rows that end leave the others as long as they were.
        longest = max(row.tokens for row in rows)
        tokens = longest * len(alive)
        return BlockWork(tokens, longest * tokens, queries=tokens, keys=tokens)
    prefix = plan.prefix if len(rows) > 1 else 0
    own = [row.tokens - prefix for row in alive]
    tokens = prefix + sum(own)
    if plan.layout == "block_mask":
        return BlockWork(tokens, tokens * tokens, queries=tokens, keys=tokens)
    grids = [[i] for i in range(len(own))] if plan.layout == "exact" else like_lengths(own, prefix)
    work = BlockWork(tokens, prefix * prefix, queries=prefix, keys=prefix)
    for members in grids:
        longest = max(own[i] for i in members)
        queries, seen = len(members) * longest, prefix + longest
        work = replace(
            work,
            pairs=work.pairs + queries * seen,
            queries=work.queries + queries,
            keys=work.keys + len(members) * seen,
        )
    return work
