"""What is shown while the stages run: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import lightning as L
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from es2_lightning.logged_keys import TOKENS_PER_SECOND
from es2_lightning.training.schedule import StageEnd
from es2_lightning.training.staged_module import StagedModule

log = logging.getLogger(__name__)


class StageDisplay(L.Callback):
    """The running stage: its layers and steps, KL against τ, separation, tokens/s and time left.

    Args:
        progress: `bar`: a bar for each stage; `plain`: a line in the log every few steps; `auto`:
            a bar where stderr is a terminal, else lines; `none`: nothing but each stage's end.
        every_n_steps: How many optimizer steps lie between two lines.
        console: Where bars are drawn.
    """

    def __init__(
        self, *, progress: str = "auto", every_n_steps: int = 20, console: Console | None = None
    ) -> None:
        self._console = console or Console(stderr=True)
        auto = "bar" if self._console.is_terminal else "plain"
        self._way = auto if progress == "auto" else progress
        self._every_n_steps = max(1, every_n_steps)
        self._progress: Progress | None = None
        self._bar = TaskID(0)
        self._began = (0.0, 0)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Hear of each stage's end."""
        assert isinstance(pl_module, StagedModule) and pl_module.schedule is not None
        if not trainer.is_global_zero:
            self._way = "none"
        if self._way == "bar":
            pl_module.on_stage_end.append(self._complete)
        self._began = (time.monotonic(), pl_module.schedule.steps)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        """Show the bar of a stage that begins."""
        assert isinstance(pl_module, StagedModule) and pl_module.schedule is not None
        schedule = pl_module.schedule
        if self._way != "bar" or self._progress is not None or schedule.finished:
            return
        self._progress = _StageBar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[speed]}"),
            console=self._console,
        )
        self._bar = self._progress.add_task(
            stage_name(pl_module),
            completed=schedule.steps,
            total=schedule.stage.budget(schedule.steps_per_epoch),
            figures="",
            speed="",
        )
        self._progress.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        """Move the running stage's bar, or write its line."""
        if self._way == "none" or trainer.fit_loop._should_accumulate():
            return
        assert isinstance(pl_module, StagedModule) and pl_module.schedule is not None
        schedule = pl_module.schedule
        logged = trainer.callback_metrics
        if self._progress is not None:
            self._progress.update(
                self._bar,
                completed=schedule.steps,
                figures=figures(logged),
                speed=speed(logged),
            )
        elif self._way == "plain" and schedule.steps == 0:
            self._began = (time.monotonic(), 0)  # A stage has just ended, which the log tells.
        elif self._way == "plain" and schedule.steps % self._every_n_steps == 0:
            budget = schedule.stage.budget(schedule.steps_per_epoch)
            log.info(
                "%s: step %d of %d, %s%s",
                stage_name(pl_module),
                schedule.steps,
                budget,
                ", ".join(filter(None, (figures(logged), speed(logged)))),
                self._left(schedule.steps, budget),
            )

    def _left(self, steps: int, budget: float) -> str:
        began, first = self._began
        if steps <= first:
            return ""
        seconds = (time.monotonic() - began) / (steps - first) * (budget - steps)
        minutes, seconds = divmod(round(seconds), 60)
        return f", at most {minutes}:{seconds:02d} left"

    def _complete(self, end: StageEnd) -> None:
        """Leave the stage's last state on the terminal, so that what is logged comes below it."""
        if self._progress is not None:
            self._progress.update(
                self._bar,
                total=max(end.steps, 1),
                completed=end.steps,
                figures="" if end.kl is None else f"KL {end.kl:.2g}",
            )
        self._stop()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the display away; its last state stays."""
        self._stop()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Give the terminal back."""
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class _StageBar(Progress):
    """With the figures below it, where a narrow terminal has room for them too."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            yield Text(f"  {task.fields['figures']}", style="dim")


def stage_name(module: StagedModule) -> str:
    """The running stage with its layers."""
    assert module.schedule is not None
    layers = ", ".join(map(str, module.schedule.stage.layers))
    over = f", layer {layers}" if layers else ""
    return f"Stage {module.schedule.stage_index + 1}/{len(module.stages)}{over}"


def figures(logged: Mapping[str, Any]) -> str:
    """A step's figures in a line; what a method does not log is left out.

    Args:
        logged: By key.
    """
    found = {key: float(value) for key, value in logged.items()}
    found = {key: value for key, value in found.items() if math.isfinite(value)}
    parts = []
    if (loss := found.get("train/loss")) is not None:
        parts.append(f"loss {loss:.3g}")
    if (kl := found.get("train/kl")) is not None:
        threshold = found.get("train/kl_threshold")
        parts.append(f"KL {kl:.2g}" + ("" if threshold is None else f" (τ {threshold:g})"))
    if (separation := found.get("train/separation")) is not None:
        relative = found.get("train/separation_relative")
        of_norm = "" if relative is None else f" ({relative:.2f} of the mean norm)"
        parts.append(f"separation {separation:.3g}{of_norm}")
    return ", ".join(parts)


def speed(logged: Mapping[str, Any]) -> str:
    """Tokens a second, where they are logged."""
    if TOKENS_PER_SECOND not in logged:
        return ""
    rate = float(logged[TOKENS_PER_SECOND])
    return f"{rate / 1000:.1f}k tokens/s" if rate >= 1000 else f"{rate:.0f} tokens/s"
