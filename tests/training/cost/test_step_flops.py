"""The whole step: closed form against the counter, and what is achieved against the floor."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from es2_lightning.training.cost.flops import count_flops
from es2_lightning.training.cost.shapes import ModelShape
from es2_lightning.training.cost.step_flops import step_flops
from es2_lightning.training.cost.step_plan import StepPlan

from .meta_steps import MetaStep

TINY = ModelShape(
    num_layers=4,
    hidden_size=32,
    intermediate_size=64,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    vocab_size=1009,
)
HARMLESS, HARMFUL = (9, 14, 23, 11, 30, 12), (17, 13, 15)
PLAN = StepPlan(kl_chunk=16)
EVERYTHING = replace(PLAN, prefix=5, reference="cached", hold="statistics")


def _step(plan: StepPlan, **changed: object) -> MetaStep:
    values: dict[str, object] = {
        "shape": TINY,
        "harmless": HARMLESS,
        "harmful": HARMFUL,
        "layer": 2,
        "common": plan.prefix,
    }
    return MetaStep(plan=plan, **(values | changed))  # type: ignore[arg-type]


OPTIONS: list[dict[str, object]] = [
    {},
    {"truncate": False},
    {"reference": "cached"},
    {"reference": "cached", "hold": "statistics"},
    {"kl_chunk": None},
    {"micro_batch": 4},
    {"checkpointing": True},
    {"checkpointing": True, "micro_batch": 4},
]
PREFIX: list[dict[str, object]] = [
    {"prefix": 5},
    {"prefix": 5, "reference": "cached", "hold": "statistics"},
    {"prefix": 5, "micro_batch": 3},
]


@pytest.mark.parametrize(
    ("layout", "changed"),
    # A shared prefix needs packing.
    [("off", changed) for changed in OPTIONS]
    + [(layout, changed) for layout in ("grid", "block_mask") for changed in OPTIONS + PREFIX],
    ids=str,
)
def test_the_closed_form_is_what_is_counted(layout: str, changed: dict[str, object]) -> None:
    plan = replace(PLAN, layout=layout, **changed)  # type: ignore[arg-type]
    step = _step(plan)
    counted = count_flops(step, vocab_size=TINY.vocab_size)
    assert counted == step_flops(TINY, step.rows, plan, step.lora)


@pytest.mark.parametrize(
    "changed",
    [
        {"layer": 1},
        {"layer": 4},
        {"outputs": 1},
        {"outputs": 7},
        {"targets": "all-linear"},
        {"targets": ["down_proj"], "layer": 4},
        {"dtype": torch.bfloat16},
    ],
    ids=str,
)
@pytest.mark.parametrize("plan", [PLAN, EVERYTHING], ids=["plain", "everything"])
def test_of_any_batch(plan: StepPlan, changed: dict[str, object]) -> None:
    step = _step(plan, **changed)
    counted = count_flops(step, vocab_size=TINY.vocab_size)
    assert counted == step_flops(TINY, step.rows, plan, step.lora)


@pytest.mark.parametrize("kl_chunk", [16, None])
def test_where_all_weights_train(kl_chunk: int | None) -> None:
    plan = replace(PLAN, kl_chunk=kl_chunk)
    step = _step(plan, targets=None)
    counted = count_flops(step, vocab_size=TINY.vocab_size)
    assert counted == step_flops(TINY, step.rows, plan, None, trains_head=True)
