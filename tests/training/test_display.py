"""What is shown while the stages run."""

from __future__ import annotations

import io
import logging
import math
import re
import time
from pathlib import Path

import lightning as L
import pytest
import torch
from rich.console import Console

from es2_lightning.evaluation.progress import plain_progress
from es2_lightning.training.display import StageDisplay
from es2_lightning.training.step_cost import StepCost
from es2_lightning.training.validation_probes import ValidationProbes, held_out_accuracy

from .tiny_runs import TinyRun

FIGURES = r"KL \S+ \(τ 100\), separation \S+ \(\S+ of the mean norm\)"


class Slow(L.Callback):
    """Steps that are long enough to be seen: a bar is drawn ten times a second."""

    def on_train_batch_end(self, *args: object) -> None:
        time.sleep(0.15)


def shown(tmp_path: Path, display: StageDisplay, *others: L.Callback) -> None:
    TinyRun().fit(StepCost(), display, *others, default_root_dir=tmp_path)


def test_a_terminal_has_a_bar_for_each_stage(tmp_path: Path) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=80, color_system=None)
    shown(tmp_path, StageDisplay(console=console), Slow())
    found = text.getvalue()
    for stage in ("Stage 1/2, layer 2", "Stage 2/2, layer 4"):
        assert re.search(rf"{stage} .*3/3", found)
    assert re.search(FIGURES, found) and "━" in found and "tokens/s" in found


@pytest.mark.parametrize("progress", ["auto", "plain", "none"])
def test_a_log_has_lines(tmp_path: Path, progress: str, caplog: pytest.LogCaptureFixture) -> None:
    text = io.StringIO()
    display = StageDisplay(progress=progress, every_n_steps=2, console=Console(file=text))
    with caplog.at_level(logging.INFO, logger="es2_lightning"):
        shown(tmp_path, display)
    lines = [r.message for r in caplog.records if r.name == "es2_lightning.training.display"]
    assert text.getvalue() == ""
    if progress == "none":
        assert not lines
        return
    assert [line.split(", loss")[0] for line in lines] == [
        f"Stage {number}/2, layer {layer}: step 2 of 3" for number, layer in ((1, 2), (2, 4))
    ]
    assert all(re.search(rf"{FIGURES}, \S+ tokens/s, ", line) for line in lines)
    assert all(re.search(r"at most \d+:\d\d left$", line) for line in lines)


def test_an_evaluation_tells_when_something_is_through(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), plain_progress(seconds=math.inf) as progress:
        for done in (1, 2, 3, 3):
            progress("base: scav", done, 3)
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("base: scav: 3 of 3, ")
    caplog.clear()
    with caplog.at_level(logging.INFO), plain_progress(seconds=0) as progress:
        progress("base: scav", 1, 3)
        time.sleep(0.001)
        progress("base: scav", 2, 3)
    assert len(caplog.records) == 2


def test_tokens_are_those_of_all_batches_of_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(1000))
    monkeypatch.setattr(StepCost, "_now", staticmethod(lambda _: float(next(seconds))))
    counted: list[int] = []
    rates: list[float] = []

    class Count(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *args: object) -> None:
            counted.append(sum(len(row.token_ids) for row in args[2].rows))  # type: ignore[attr-defined]
            if not trainer.fit_loop._should_accumulate():
                rates.append(float(trainer.callback_metrics["train/tokens_per_second"]))

    TinyRun().fit(StepCost(), Count(), default_root_dir=tmp_path, accumulate_grad_batches=2)
    steps = [sum(counted[i : i + 2]) for i in range(0, len(counted), 2)]
    # The clock that stands in goes on by one second with each look at it.
    assert rates[0] == steps[0]
    assert len(rates) >= 6


def test_states_that_differ_are_told_apart_and_others_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    same = torch.randn(400, 8, generator=generator)
    assert held_out_accuracy(same[:200] + 3, same[200:]) == pytest.approx(1.0, abs=0.02)
    assert held_out_accuracy(same[:200], same[200:]) == pytest.approx(0.5, abs=0.1)
    # Many dimensions: a probe that is scored on what it was fitted on would be right always.
    wide = torch.randn(60, 400, generator=generator)
    assert held_out_accuracy(wide[:30], wide[30:]) == pytest.approx(0.5, abs=0.3)
    assert held_out_accuracy(same[:9], same[200:]) is None


def test_no_prompt_is_both_fitted_on_and_scored_on() -> None:
    kept: list[int] = []

    class Kept(ValidationProbes):
        def on_validation_epoch_end(self, *args: object) -> None:
            kept.append(sum(len(part[2]) for part in self._states["harmful"]))

    # 12 harmful prompts in batches of 5: the third batch begins the next pass.
    TinyRun(harmful_per_batch=5).fit(Kept())
    assert kept[-1] == 10
