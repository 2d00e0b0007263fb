"""What is shown while the stages run."""

from __future__ import annotations

from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from es2_lightning.training.es2_module import ES2Module
from es2_lightning.training.schedule import StageEnd


class StageDisplay(L.Callback):
    """A bar for each stage on the terminal: its layers, steps, loss, and KL against τ.

    Where the output is no terminal, only the log's line at each stage's end is written.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._progress: Progress | None = None
        self._tasks: dict[int, TaskID] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the display."""
        if not (self._console.is_terminal and trainer.is_global_zero):
            return
        assert isinstance(pl_module, ES2Module)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
        )
        self._progress.start()
        pl_module.on_stage_end.append(self._complete)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        """Move the running stage's bar."""
        if self._progress is None:
            return
        assert isinstance(pl_module, ES2Module) and pl_module.schedule is not None
        schedule = pl_module.schedule
        if schedule.finished:
            return
        logged = trainer.callback_metrics
        loss, kl = (float(logged.get(f"train/{name}", float("nan"))) for name in ("loss", "kl"))
        self._progress.update(
            self._task(pl_module),
            completed=schedule.steps,
            figures=f"loss {loss:.3g}  KL {kl:.2g} (τ {schedule.stage.kl_threshold:g})",
        )

    def _task(self, module: ES2Module) -> TaskID:
        assert self._progress is not None and module.schedule is not None
        number = module.schedule.stage_index
        if number not in self._tasks:
            stage = module.schedule.stage
            budget = stage.budget(module.schedule.steps_per_epoch)
            self._tasks[number] = self._progress.add_task(
                f"Stage {number + 1}/{len(module.stages)}, layer "
                + ", ".join(map(str, stage.layers)),
                total=budget,
                figures="",
            )
        return self._tasks[number]

    def _complete(self, end: StageEnd) -> None:
        if self._progress is not None and end.stage in self._tasks:
            self._progress.update(
                self._tasks[end.stage], total=max(end.steps, 1), completed=end.steps
            )

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
