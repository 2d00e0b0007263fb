"""Training against a cached reference is training against a live one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from es2_lightning.backbone.layouts import Packing
from es2_lightning.backbone.reference import AdapterReference
from es2_lightning.backbone.row_store import drop_memory_stores
from es2_lightning.backbone.token_rows import TokenRow
from es2_lightning.training.cache_build import CacheBuild
from es2_lightning.training.settings import LossSettings, StepSettings

from ..tiny_models import Architecture
from .tiny_runs import Record, TinyRun, relative_error, trainable


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    drop_memory_stores()
    yield
    drop_memory_stores()


def trained(*callbacks: Any, **values: Any) -> tuple[TinyRun, Record]:
    loss = LossSettings(harmful_kl_weight=0.5, kl_positions=values.pop("kl_positions", "all"))
    run, record = TinyRun(loss=loss, refusals=6, **values), Record()
    run.fit(record, *callbacks)
    assert run.moved() > 1e-3
    return run, record


@pytest.mark.parametrize("packing", ["grid", "off"])
@pytest.mark.parametrize(
    ("architecture", "mode", "reference", "kl_positions"),
    [
        ("llama", "lora", "cached", "all"),
        ("llama", "lora", "cached", "last"),
        ("llama", "lora", "cached_statistics", "all"),
        ("qwen2", "lora", "cached_statistics", "response"),
        ("gemma2", "lora", "cached", "all"),
        ("llama", "full", "cached", "all"),
        ("gemma2", "full", "cached", "all"),
    ],
)
def test_the_steps_are_those_of_a_copy(
    architecture: Architecture, mode: Any, reference: str, kl_positions: str, packing: Packing
) -> None:
    values = {"architecture": architecture, "mode": mode, "kl_positions": kl_positions}
    copied, c = trained(reference="copy", packing=packing, **values)
    cached, a = trained(reference=reference, packing=packing, **values)
    assert a.losses == pytest.approx(c.losses, rel=1e-6)
    # The first step's; float32's rounding is carried on through Adam.
    assert relative_error(a.gradients[0], c.gradients[0]) <= 1e-6
    for ours, theirs in zip(a.gradients, c.gradients, strict=True):
        assert relative_error(ours, theirs) <= 3e-6
    assert relative_error(trainable(cached.module), trainable(copied.module)) <= 1e-6


def test_micro_batches_look_up_their_rows() -> None:
    _, w = trained(reference="cached")
    _, p = trained(reference="cached", step=StepSettings(micro_batch=2))
    assert p.losses == pytest.approx(w.losses, rel=2e-6)


class Asked:
    """Stands in for a cached reference: what it is asked to hold, and in which circumstances."""

    def __init__(self, run: TinyRun) -> None:
        self.run = run

    def ensure(self, rows: Iterable[TokenRow], *, progress: Any) -> str:
        self.rows = list(rows)
        self.weights = trainable(self.run.module)
        self.autocast = torch.is_autocast_enabled("cpu")
        progress("Reference cache", 1, 1)
        return "what it took"


def test_the_cache_is_built_before_a_checkpoint_loads_in_the_precision_of_a_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save = ModelCheckpoint(dirpath=tmp_path, save_last=True, every_n_train_steps=4, save_top_k=0)
    first = TinyRun(reference="cached", refusals=3)
    first.fit(save, enable_checkpointing=True)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert saved.keys() == trainable(first.module).keys(), "no more than what trains"
    run = TinyRun(reference="cached", refusals=3)
    asked = Asked(run)
    told: list[tuple[str, int, int]] = []
    build = CacheBuild(
        asked,  # type: ignore[arg-type]
        progress=lambda: nullcontext(lambda *progress: told.append(progress)),
    )
    with caplog.at_level(logging.INFO):
        run.fit(build, ckpt_path=str(tmp_path / "last.ckpt"), precision="bf16-mixed")
    assert "Reference cache: what it took" in caplog.text
    assert relative_error(asked.weights, run.start) == 0
    assert relative_error(saved, run.start) > 0
    assert asked.autocast and told == [("Reference cache", 1, 1)]
    splits = run.data.splits
    harmless = [p for s in (splits.train, splits.validation) for p in s.harmless]
    assert len(asked.rows) == len(harmless) + 3


def test_neither_a_run_nor_the_next_job_computes_a_row_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Training and validation find all there; so does a job with other loss weights."""
    first = TinyRun(reference="cached", refusals=3)

    def computes(*_: object) -> None:
        raise AssertionError("a row was computed again")

    monkeypatch.setattr(AdapterReference, "outputs", computes)
    first.fit()
    second = TinyRun(reference="cached", refusals=3, loss=LossSettings(kl_weight=0.1))
    second.fit()
    assert min(first.moved(), second.moved()) > 0
