"""The least that a step must compute: what an implementation without any waste would.

Valid tokens only; harmless prompts through all blocks, harmful ones through the layer that is
separated; attention over each prompt's own rectangle, queries x keys; gradients of inputs and of
what trains, and none below the first module that trains; the reference cached; nothing computed
twice.

All tokens of a prompt count in each block that it enters. `strict` leaves out, of the last block
that a prompt enters, what nobody reads: there a position that neither the KL nor the separation
looks at is key and value to the others, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from es2_lightning.training.cost.closed_form import BlockWork, head_product, pass_flops
from es2_lightning.training.cost.flops import FlopCount
from es2_lightning.training.cost.shapes import ModelShape
from es2_lightning.training.cost.step_flops import block_works, head_products, output_positions
from es2_lightning.training.cost.step_plan import LoraShape, RowShape, StepPlan


def floor_flops(
    shape: ModelShape,
    rows: Sequence[RowShape],
    plan: StepPlan,
    lora: LoraShape | None,
    *,
    strict: bool = False,
) -> FlopCount:
    """The floor of the same options: what is held of the reference, and the prefix, as planned.

    The head takes 2 matrix products a position (logits and their gradient) with statistics, and 3
    with hidden states, of which the reference's logits are made; a head that trains one more, for
    its own gradient.

    Args:
        shape: Of the model.
        rows: All prompts of the batch.
        plan: Of it, `prefix` and `hold`.
        lora: What trains; None: all weights.
        strict: Leave out what nobody reads of each prompt's last block.
    """
    lean = StepPlan(
        layout="exact", reference="cached", prefix=plan.prefix, hold=plan.hold, kl_chunk=None
    )
    works = block_works(rows, lean, depth=shape.num_layers)
    if strict:
        for row in rows:
            works[row.depth - 1] = _without_unread(works[row.depth - 1], row, lean.prefix)
    blocks = pass_flops(shape, works, lora)
    products = head_products(lean, trains_head=lora is None)
    return FlopCount(
        blocks.forward,
        blocks.backward,
        products * head_product(shape, output_positions(rows, lean)),
    )


def absolute_floor_flops(
    shape: ModelShape,
    rows: Sequence[RowShape],
    *,
    prefix: int,
    lora: LoraShape | None,
    strict: bool = False,
) -> FlopCount:
    """The floor with everything on: statistics, and the prefix shared.

    Args:
        shape: Of the model.
        rows: All prompts of the batch.
        prefix: Tokens that all of them begin with.
        lora: What trains; None: all weights.
        strict: Leave out what nobody reads of each prompt's last block.
    """
    everything = StepPlan(hold="statistics", prefix=prefix)
    return floor_flops(shape, rows, everything, lora, strict=strict)


def _without_unread(work: BlockWork, row: RowShape, prefix: int) -> BlockWork:
    own = row.tokens - prefix
    # Where nothing is compared, the last token's state is read all the same.
    unread = own - max(1, min(row.outputs, own))
    return replace(work, pairs=work.pairs - unread * row.tokens, unread=work.unread + unread)
