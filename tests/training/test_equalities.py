"""Ways to compute the same step: kinds of reference, micro-batches, precision of the check."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from es2_lightning.training.batches import PairedBatch
from es2_lightning.training.settings import LossSettings, ScheduleSettings, StepSettings

from ..tiny_models import tiny_splits
from .tiny_runs import Record, TinyRun, relative_error, trainable

LOSS = LossSettings(harmful_kl_weight=0.5)


def trained(**values: Any) -> tuple[TinyRun, Record]:
    run, record = TinyRun(loss=LOSS, refusals=6, **values), Record()
    run.fit(record)
    assert run.moved() > 1e-3
    return run, record


def test_adapter_and_copy_reference_give_the_same() -> None:
    (adapter, a), (copied, c) = trained(reference="adapter"), trained(reference="copy")
    assert a.losses == pytest.approx(c.losses, rel=1e-6)
    for ours, theirs in zip(a.gradients, c.gradients, strict=True):
        assert relative_error(ours, theirs) <= 1e-6
    assert relative_error(trainable(adapter.module), trainable(copied.module)) <= 1e-6
    assert adapter.ends == copied.ends


@pytest.mark.parametrize("micro_batch", [1, 4, 100])
def test_micro_batches_equal_the_whole_batch(micro_batch: int) -> None:
    (whole, w), (parts, p) = trained(), trained(step=StepSettings(micro_batch=micro_batch))
    assert p.losses == pytest.approx(w.losses, rel=2e-6)
    # Rows are summed in another order, in float32; the sums carry on through Adam.
    assert relative_error(p.gradients[0], w.gradients[0]) <= 1e-6
    assert relative_error(trainable(parts.module), trainable(whole.module)) <= 1e-6


def test_micro_batches_split_nothing_that_belongs_together() -> None:
    """5 × (10 + 2) prompts are one step of 50 + 10, unlike five accumulated batches."""
    run = TinyRun(splits=tiny_splits(20), harmless_per_batch=50, harmful_per_batch=10)
    batch = run.data.collate(run.splits.train.harmless[:50], run.splits.train.harmful[:10])
    objective = run.module.objective
    objective.measure_base_norms(run.splits.train)
    objective.step.micro_batch = 12
    parts = batch.micro_batches(12)
    assert [Counter(batch.harmful[i] for i in part) for part in parts] == [{False: 10, True: 2}] * 5

    def gradients() -> dict[str, torch.Tensor]:
        found = {n: p.grad.clone() for n, p in run.module.named_parameters() if p.grad is not None}
        run.module.zero_grad()
        return found

    objective(batch, [2]).loss.backward()
    exact = gradients()
    objective.step.micro_batch = None
    objective(batch, [2]).loss.backward()
    assert relative_error(exact, gradients()) <= 1e-6
    for part in parts:
        rows = PairedBatch(*(tuple(x[i] for i in part) for x in (batch.rows, batch.harmful)))
        (objective(rows, [2]).loss / len(parts)).backward()
    assert relative_error(gradients(), exact) > 0.01, "the pairs across the parts count"


def test_micro_batches_draw_dropout_once() -> None:
    """The recomputed forward pass sees the dropout of the first, or gradients would be wrong."""
    run = TinyRun(dropout=0.5, step=StepSettings(micro_batch=3))
    batch = run.data.collate(run.splits.train.harmless[:5], run.splits.train.harmful[:4])
    run.module.objective.measure_base_norms(run.splits.train)
    run.module.model.train()
    parameter = next(
        p for n, p in run.module.named_parameters() if "layers.0" in n and "lora_B" in n
    )
    direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))

    def loss(step: float) -> torch.Tensor:
        torch.manual_seed(7)
        parameter.data += step * direction
        try:
            return run.module.objective(batch, [2]).loss
        finally:
            parameter.data -= step * direction

    loss(0.0).backward()
    assert parameter.grad is not None
    slope = float((parameter.grad * direction).sum())
    with torch.no_grad():
        measured = float(loss(1e-2) - loss(-1e-2)) / 2e-2
    assert measured == pytest.approx(slope, rel=0.02)


def test_joint_averages_the_layers_and_sequential_takes_them_in_turn() -> None:
    run = TinyRun()
    run.module.objective.measure_base_norms(run.splits.train)
    batch = run.data.collate(run.splits.train.harmless[:5], run.splits.train.harmful[:4])
    two, four, both = (run.module.objective(batch, layers) for layers in ([2], [4], [2, 4]))
    assert float(both.loss) == pytest.approx((float(two.loss) + float(four.loss)) / 2, rel=1e-6)
    joint = TinyRun(schedule=ScheduleSettings(order="joint", kl_threshold=100.0, max_steps=2))
    joint.fit()
    assert joint.ends == [((2, 4), "budget", 2)]
    sequential = TinyRun(schedule=ScheduleSettings(kl_threshold=100.0, max_steps=[1, 2]))
    sequential.fit()
    assert sequential.ends == [((2,), "budget", 1), ((4,), "budget", 2)]


def test_raw_and_base_norm_units_differ_by_the_base_norm_and_the_terminal_state_is_chosen() -> None:
    run = TinyRun()
    batch = run.data.collate(run.splits.train.harmless[:5], run.splits.train.harmful[:4])
    objective = run.module.objective
    objective.measure_base_norms(run.splits.train)
    assert all(norm > 0 for norm in objective.base_norms.values())
    in_units = float(objective(batch, [4]).distances[4])
    objective.settings = LossSettings(distance_unit="raw")
    raw = float(objective(batch, [4]).distances[4])
    assert raw == pytest.approx(in_units * objective.base_norms[4])
    after = TinyRun(terminal_state="post_norm").module.objective
    after.measure_base_norms(run.splits.train)
    # An RMS norm with weights of 1 leaves every state with norm √32.
    assert after.base_norms[4] == pytest.approx(32**0.5, rel=1e-3)
    assert after.base_norms[2] == pytest.approx(objective.base_norms[2])
