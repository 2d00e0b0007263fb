"""Closed forms against the counter, to the exact number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from es2_lightning.backbone.adapters import add_lora
from es2_lightning.backbone.checkpointing import enable_checkpointing
from es2_lightning.backbone.truncated import truncated
from es2_lightning.training.cost.closed_form import BlockWork, head_product, pass_flops
from es2_lightning.training.cost.flops import count_flops
from es2_lightning.training.cost.named_shapes import NAMED_SHAPES, to_config
from es2_lightning.training.cost.shapes import ModelShape
from es2_lightning.training.cost.step_plan import LoraShape

TINY = ModelShape(
    num_layers=4,
    hidden_size=32,
    intermediate_size=64,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    vocab_size=301,
)
TARGETS = [["q_proj", "v_proj"], "all-linear", ["gate_proj"], ["o_proj"], ["down_proj"]]
BATCH, LENGTH = 3, 11
WORK = BlockWork(BATCH * LENGTH, BATCH * LENGTH * LENGTH)


def _model(shape: ModelShape, targets: str | Sequence[str] | None) -> tuple[Any, LoraShape | None]:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(to_config(shape)).train()
        if targets is None:
            return model, None
        model = add_lora(model, r=5, lora_dropout=0.0, target_modules=targets)
    return model, LoraShape(5, shape.adapted(targets))


def _inputs() -> dict[str, Any]:
    return {
        "input_ids": torch.zeros(BATCH, LENGTH, dtype=torch.long, device="meta"),
        "attention_mask": torch.ones(
            BATCH, 1, LENGTH, LENGTH, dtype=torch.bool, device="meta"
        ).tril(),
        "use_cache": False,
    }


@pytest.mark.parametrize("targets", [None, *TARGETS], ids=str)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_forward_and_backward_through_all_blocks(
    targets: str | list[str] | None, checkpointing: bool
) -> None:
    model, lora = _model(TINY, targets)
    if checkpointing:
        enable_checkpointing(model)
    counted = count_flops(
        lambda: model(**_inputs()).logits.sum().backward(), vocab_size=TINY.vocab_size
    )
    closed = pass_flops(TINY, [WORK] * TINY.num_layers, lora, checkpointing=checkpointing)
    assert (counted.forward, counted.backward) == (closed.forward, closed.backward)
    # A frozen head has a gradient of its input alone.
    assert counted.head == (2 if lora else 3) * head_product(TINY, WORK.tokens)


@pytest.mark.parametrize("targets", TARGETS, ids=str)
@pytest.mark.parametrize("layer", [1, 3])
def test_a_truncated_pass(targets: str | list[str], layer: int) -> None:
    model, lora = _model(TINY, targets)

    def step() -> None:
        with truncated(model, layer):
            states = model(**_inputs(), logits_to_keep=1, output_hidden_states=True).hidden_states
        states[-1][:, -1].sum().backward()

    counted = count_flops(step, vocab_size=TINY.vocab_size)
    closed = pass_flops(TINY, [WORK] * layer, lora)
    assert (counted.forward, counted.backward) == (closed.forward, closed.backward)


def test_a_gradient_that_comes_back_through_the_first_blocks_only() -> None:
    model, lora = _model(TINY, ["q_proj", "v_proj"])

    def step() -> None:
        states = model(**_inputs(), output_hidden_states=True).hidden_states
        states[2].sum().backward()

    counted = count_flops(step, vocab_size=TINY.vocab_size)
    closed = pass_flops(TINY, [WORK] * 4, lora, backward_depth=2)
    assert (counted.forward, counted.backward) == (closed.forward, closed.backward)


@pytest.mark.parametrize("name", ["small12_32k", "llama3_8b", "qwen2_5_7b"])
def test_shapes_that_people_use(name: str) -> None:
    shape = NAMED_SHAPES[name]
    model, lora = _model(shape, ["q_proj", "v_proj"])
    counted = count_flops(
        lambda: model(**_inputs()).logits.sum().backward(), vocab_size=shape.vocab_size
    )
    closed = pass_flops(shape, [WORK] * shape.num_layers, lora)
    assert (counted.forward, counted.backward) == (closed.forward, closed.backward)
