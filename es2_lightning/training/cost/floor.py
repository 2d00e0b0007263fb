"""The least that a step must compute: what an implementation without any waste would.

Valid tokens only; harmless prompts through all blocks, harmful ones through the layer that is
separated; attention over each prompt's own rectangle, queries x keys; gradients of inputs and of
what trains, and none below the first module that trains; the reference cached; nothing computed
twice. All tokens of a prompt count in each block that it enters.
"""

from __future__ import annotations

from collections.abc import Sequence

from es2_lightning.training.cost.flops import FlopCount
from es2_lightning.training.cost.shapes import ModelShape
from es2_lightning.training.cost.step_flops import step_flops
from es2_lightning.training.cost.step_plan import LoraShape, RowShape, StepPlan


def floor_flops(
    shape: ModelShape, rows: Sequence[RowShape], plan: StepPlan, lora: LoraShape | None
) -> FlopCount:
    """The floor of the same options: what is held of the reference, and the prefix, as planned.

    The head takes 2 matrix products a position (logits and their gradient) with statistics, and 3
    with hidden states, of which the reference's logits are made.
    """
    lean = StepPlan(layout="exact", reference="cached", prefix=plan.prefix, hold=plan.hold)
    return step_flops(shape, rows, lean, lora, trains_head=lora is None)


def absolute_floor_flops(
    shape: ModelShape, rows: Sequence[RowShape], *, prefix: int, lora: LoraShape | None
) -> FlopCount:
    """The floor with everything on.

    Args:
        shape: Of the model.
        rows: All prompts of the batch.
        prefix: Tokens that all of them begin with.
        lora: What trains; None: all weights.
    """
    everything = StepPlan(reference="cached", hold="statistics", prefix=prefix)
    return floor_flops(shape, rows, everything, lora)
