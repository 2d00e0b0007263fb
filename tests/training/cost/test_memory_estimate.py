"""The closed form of a step's memory against what real steps hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from es2_lightning.training.cost.memory import count_bytes
from es2_lightning.training.cost.memory_estimate import MemoryEstimate, estimate_memory
from es2_lightning.training.cost.named_shapes import NAMED_SHAPES
from es2_lightning.training.cost.saved_tensors import Precision
from es2_lightning.training.cost.shapes import ModelShape
from es2_lightning.training.cost.step_plan import LoraShape, StepPlan, batch_rows

from .meta_steps import MetaStep

SHAPE = ModelShape(
    num_layers=6,
    hidden_size=256,
    intermediate_size=704,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=32,
    vocab_size=8009,
)
HARMLESS, HARMFUL = tuple(range(10, 40)), tuple(range(14, 30, 2))
PLAN = StepPlan(kl_chunk=64)


def _ratio(step: MetaStep) -> float:
    """Estimated over counted."""
    size = torch.finfo(step.dtype).bits // 8
    estimate = estimate_memory(
        step.shape, step.rows, step.plan, step.lora, precision=Precision(size, size, step.device)
    )
    gradients = 0 if step.lora else estimate.gradients
    return (estimate.step + gradients) / count_bytes(step, device="meta").peak


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("plan", "changed"),
    [
        (PLAN, {}),
        (PLAN, {"layer": 6}),
        (PLAN, {"outputs": 1}),
        (PLAN, {"targets": "all-linear"}),
        (PLAN, {"targets": "all-linear", "dropout": 0.05}),
        (PLAN, {"targets": ["down_proj"]}),
        (replace(PLAN, truncate=False), {}),
        (replace(PLAN, kl_chunk=None), {}),
        (replace(PLAN, layout="off"), {}),
        (replace(PLAN, layout="block_mask"), {}),
        (replace(PLAN, prefix=5), {}),
        (replace(PLAN, prefix=5, reference="cached", hold="statistics"), {}),
        (replace(PLAN, micro_batch=10), {}),
        (replace(PLAN, lean_norms=True), {}),
        (replace(PLAN, checkpointing=True), {}),
        (replace(PLAN, checkpointing=True, micro_batch=10), {}),
    ],
    ids=str,
)
def test_estimates_are_near(plan: StepPlan, changed: dict[str, object], dtype: torch.dtype) -> None:
    values = {"layer": 2, "dtype": dtype, "common": plan.prefix} | changed
    step = MetaStep(SHAPE, HARMLESS, HARMFUL, plan=plan, **values)  # type: ignore[arg-type]
    assert 0.94 < _ratio(step) < 1.15


def test_estimates_are_near_at_8b() -> None:
    step = MetaStep(NAMED_SHAPES["llama3_8b"], HARMLESS, HARMFUL, 10, PLAN, dtype=torch.bfloat16)
    assert 0.98 < _ratio(step) < 1.02


def test_estimates_are_near_under_autocast() -> None:
    plan = replace(PLAN, reference="cached")
    step = MetaStep(SHAPE, HARMLESS[::3], HARMFUL[::3], 2, plan, device="cpu")

    def autocast() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = step.objective(step.batch, [step.layer]).loss
        loss.backward()

    estimate = estimate_memory(
        step.shape, step.rows, plan, step.lora, precision=Precision(weight=4, activation=2)
    )
    assert 0.92 < estimate.step / count_bytes(autocast).peak < 1.1


def test_where_all_weights_train_the_estimate_is_too_high_not_too_low() -> None:
    plan = replace(PLAN, reference="copy")
    step = MetaStep(SHAPE, HARMLESS, HARMFUL, 2, plan, targets=None)
    assert 1 < _ratio(step) < 1.5


def _estimate(plan: StepPlan, lora: LoraShape | None, **changed: object) -> MemoryEstimate:
    rows = batch_rows(HARMLESS, HARMFUL, layer=2, num_layers=6)
    return estimate_memory(SHAPE, rows, plan, lora, precision=Precision(2, 2), **changed)  # type: ignore[arg-type]


def test_what_stands_beside_a_step() -> None:
    lora = LoraShape(8, frozenset({"q_proj", "v_proj"}))
    trained = 6 * 8 * ((256 + 256) + (256 + 128))
    assert lora.parameters(SHAPE) == trained
    adapted = _estimate(PLAN, lora)
    assert adapted.weights == 2 * SHAPE.parameters and adapted.reference == 0
    assert (adapted.adapter, adapted.gradients, adapted.optimizer) == tuple(
        4 * trained * n for n in (1, 1, 2)
    )
    assert adapted.device == 2 * SHAPE.parameters + 4 * 4 * trained + adapted.step
    whole = _estimate(replace(PLAN, reference="copy"), None)
    assert whole.reference == whole.weights == whole.gradients == whole.optimizer // 2
    matrices = 6 * (SHAPE.block_parameters - 2 * 256)
    quantized = _estimate(PLAN, lora, quantized=True).weights
    assert adapted.weights - quantized == pytest.approx((2 - 0.53) * matrices, abs=1)


def test_what_a_cache_holds() -> None:
    lora = LoraShape(8, frozenset({"q_proj"}))
    cached = replace(PLAN, reference="cached")
    assert _estimate(PLAN, lora, cached_positions=1000).host_cache == 0
    assert _estimate(cached, lora, cached_positions=1000).host_cache == 1000 * 256 * 2
    statistics = replace(cached, hold="statistics")
    assert _estimate(statistics, lora, cached_positions=1000).host_cache == 1000 * (256 * 4 + 8)


def test_checkpointing_and_micro_batches_are_for_memory() -> None:
    lora = LoraShape(8, frozenset({"q_proj", "v_proj"}))
    plain = _estimate(PLAN, lora).activations
    assert _estimate(replace(PLAN, checkpointing=True), lora).activations < plain / 4
    assert _estimate(replace(PLAN, micro_batch=5), lora).activations < plain / 4
