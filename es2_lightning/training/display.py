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

from es2_lightning.training.schedule import StageEnd
from es2_lightning.training.staged_module import StagedModule


class StageDisplay(L.Callback):
    """A bar for each stage on the terminal: its layers, steps, loss, and KL against τ.

    Where the output is no terminal, only the log's line at each stage's end is written.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._progress: Progress | None = None
        self._bar = TaskID(0)
        self._shown = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Hear of each stage's end."""
        self._shown = self._console.is_terminal and trainer.is_global_zero
        assert isinstance(pl_module, StagedModule)
        if self._shown:
            pl_module.on_stage_end.append(self._complete)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        """Show the bar of a stage that begins."""
        assert isinstance(pl_module, StagedModule) and pl_module.schedule is not None
        schedule = pl_module.schedule
        if not self._shown or self._progress is not None or schedule.finished:
            return
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
        )
        self._bar = self._progress.add_task(
            f"Stage {schedule.stage_index + 1}/{len(pl_module.stages)}, layer "
            + ", ".join(map(str, schedule.stage.layers)),
            completed=schedule.steps,
            total=schedule.stage.budget(schedule.steps_per_epoch),
            figures="",
        )
        self._progress.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        """Move the running stage's bar."""
        if self._progress is None:
            return
        assert isinstance(pl_module, StagedModule) and pl_module.schedule is not None
        schedule = pl_module.schedule
        logged = trainer.callback_metrics
        loss, kl = (float(logged.get(f"train/{name}", float("nan"))) for name in ("loss", "kl"))
        self._progress.update(
            self._bar,
            completed=schedule.steps,
            figures=f"loss {loss:.3g}  KL {kl:.2g} (τ {schedule.stage.kl_threshold:g})",
        )

    def _complete(self, end: StageEnd) -> None:
        """Leave the stage's last state on the terminal, so that what is logged comes below it."""
        if self._progress is not None:
            self._progress.update(
                self._bar,
                total=max(end.steps, 1),
                completed=end.steps,
                figures=f"KL {end.kl:.2g}",
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
