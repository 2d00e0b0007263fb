"""What a step must cost, and what ours does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from es2_lightning.training.cost.floor import absolute_floor_flops, floor_flops
from es2_lightning.training.cost.flops import count_flops
from es2_lightning.training.cost.step_plan import LoraShape, StepPlan, batch_rows

from .meta_steps import MetaStep
from .test_step_flops import EVERYTHING, HARMFUL, HARMLESS, PLAN, TINY

LORA = LoraShape(8, frozenset({"q_proj", "v_proj"}))
WIDE = replace(TINY, hidden_size=256, intermediate_size=704, head_dim=64, vocab_size=8009)
"""Wide enough for attention to be as small a part as it is in models that people use."""


def test_prompts_of_one_length_cost_the_floor() -> None:
    plan = replace(PLAN, reference="cached", hold="statistics")
    step = MetaStep(TINY, (12,) * 4, (12,) * 2, 2, plan)
    counted = count_flops(step, vocab_size=TINY.vocab_size)
    assert counted == floor_flops(TINY, step.rows, plan, step.lora)
    assert counted == absolute_floor_flops(TINY, step.rows, prefix=0, lora=step.lora)


@pytest.mark.parametrize("layer", [2, 4])
@pytest.mark.parametrize("outputs", [None, 1])
@pytest.mark.parametrize("prefix", [0, 5])
@pytest.mark.parametrize("hold", ["hidden_states", "statistics"])
def test_what_is_achieved_is_near_the_floor(
    layer: int, outputs: int | None, prefix: int, hold: Any
) -> None:
    plan = replace(PLAN, reference="cached", prefix=prefix, hold=hold)
    step = MetaStep(WIDE, HARMLESS, HARMFUL, layer, plan, outputs=outputs, common=5)
    achieved = count_flops(step).total
    assert 1 <= achieved / floor_flops(WIDE, step.rows, plan, step.lora).total < 1.02
    absolute = absolute_floor_flops(WIDE, step.rows, prefix=5, lora=step.lora).total
    everything = plan.prefix == 5 and plan.hold == "statistics"
    assert (achieved / absolute < 1.02) == everything
    strict = absolute_floor_flops(WIDE, step.rows, prefix=5, lora=step.lora, strict=True).total
    assert strict < absolute


def test_what_nobody_reads_of_the_last_block() -> None:
    # One block, one token wanted of each of two prompts: all of them are keys and values.
    shape = replace(TINY, num_layers=1)
    rows = batch_rows([10], [6], layer=1, num_layers=1, outputs=1)
    plan = replace(EVERYTHING, prefix=0)
    strict = floor_flops(shape, rows, plan, None, strict=True)
    keys = 2 * 32 * 2 * 16
    others = 2 * 32 * 64 + 3 * 32 * 64
    attention = 2 * 2 * (1 * 10 + 1 * 6) * 4 * 16
    assert strict.forward == 2 * (16 * keys + 2 * others) + attention
    assert strict.backward == 2 * strict.forward
    assert floor_flops(shape, rows, plan, None).forward > strict.forward


def test_a_mixture_of_experts_costs_what_its_active_experts_do() -> None:
    dense = replace(TINY, intermediate_size=2 * 64)
    mixture = replace(TINY, num_experts=8, experts_per_token=2)
    rows = batch_rows([10], [6], layer=4, num_layers=4)
    router = 2 * 16 * 32 * 8 * 4
    of_dense, of_mixture = (floor_flops(s, rows, StepPlan(), LORA) for s in (dense, mixture))
    assert of_mixture.forward == of_dense.forward + router
    assert of_mixture.backward == of_dense.backward + router
