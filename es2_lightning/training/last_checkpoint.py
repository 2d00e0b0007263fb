"""One checkpoint file, always whole, never far behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint


class LastCheckpoint(Checkpoint):
    """Writes `last.ckpt` every few optimizer steps and at the end of the training.

    Lightning's ModelCheckpoint with `save_last` writes it either every few steps or at the end,
    and in place, so that an interruption may leave half a file.

    Args:
        dirpath: The folder.
        every_n_train_steps: Optimizer steps between two writings; at most so many are lost when
            a run is interrupted.
    """

    def __init__(self, dirpath: str | Path, *, every_n_train_steps: int = 10) -> None:
        self.path = Path(dirpath) / "last.ckpt"
        self.every_n_train_steps = every_n_train_steps
        self._written_at = -1

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        """Write where the step's number is a multiple; once, however many batches it holds."""
        step = trainer.global_step
        if step and step % self.every_n_train_steps == 0 and step != self._written_at:
            self._write(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the final state."""
        self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        new = self.path.with_suffix(".new")
        trainer.save_checkpoint(new)
        if trainer.is_global_zero:
            os.replace(new, self.path)
        self._written_at = trainer.global_step
