"""One checkpoint file, always whole, never far behind."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Checkpoint

from es2_lightning.stopping import Stopped, stop_signals

log = logging.getLogger(__name__)


class LastCheckpoint(Checkpoint):
    """Writes `last.ckpt` every few optimizer steps and at the end of the training.

    And when the run is asked to stop, by `es2_lightning.stopping`: at the end of the optimizer
    step under way, of all ranks together whichever of them was asked. A SIGUSR1 in a SLURM job is
    how it says that its time is up (`#SBATCH --signal=USR1@120`): the job is requeued.

    Lightning's ModelCheckpoint with `save_last` writes it either every few steps or at the end.

    Args:
        dirpath: The folder.
        every_n_train_steps: Optimizer steps between two writings; at most so many are lost when
            a run is interrupted.
    """

    def __init__(self, dirpath: str | Path, *, every_n_train_steps: int = 10) -> None:
        self.path = Path(dirpath) / "last.ckpt"
        self.every_n_train_steps = every_n_train_steps
        self._written_at = -1
        self._row: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """The step's metrics: Lightning logs them later, so a run that ends here has them not."""
        return {"row": self._row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Theirs, to be logged."""
        self._row = dict(state_dict["row"])

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals from Lightning, which took them just before."""
        stop_signals.be_patient()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals where there was no sanity check; log the last step's metrics."""
        stop_signals.be_patient()
        if row := dict(self._row):
            step = int(row.pop("step"))
            for logger in trainer.loggers:
                logger.log_metrics(row, step=step)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        """Write where the step's number is a multiple, and where the run is asked to stop."""
        if trainer.fit_loop._should_accumulate():
            return  # Gradients of the batches so far are in no checkpoint.
        self._row = _row(trainer)
        stops = self._stops(trainer)
        if stops or trainer.global_step % self.every_n_train_steps == 0:
            self._write(trainer)
        if stops:
            self._stop(trainer)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        """A validation may be long: stop in the middle of it, too."""
        if not trainer.sanity_checking and self._stops(trainer):
            if trainer.global_step != self._written_at:
                self._write(trainer)
            self._stop(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the final state."""
        stops = self._stops(trainer)
        if not trainer.fit_loop._should_accumulate():
            self._write(trainer)
        if stops:
            self._stop(trainer)
        stop_signals.stop_being_patient()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Nothing is waited for any longer."""
        stop_signals.stop_being_patient()

    def _stops(self, trainer: L.Trainer) -> bool:
        """Whether any rank was asked to stop: the same on all, or some would wait for others."""
        asked = stop_signals.received is not None
        return bool(trainer.strategy.reduce_boolean_decision(asked, all=False))

    def _write(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._written_at = trainer.global_step

    def _stop(self, trainer: L.Trainer) -> None:
        signum = stop_signals.received or signal.SIGTERM
        asks = trainer.is_global_zero and signum == getattr(signal, "SIGUSR1", None)
        requeued = asks and requeue()
        saved = f"after {trainer.global_step} optimizer steps, which are saved in {self.path}"
        raise Stopped(signum, f"{saved}; its SLURM job is requeued" if requeued else saved)


def _row(trainer: L.Trainer) -> dict[str, float]:
    """What Lightning is about to log of the step that has just ended; empty where it is not."""
    step = trainer.fit_loop.epoch_loop._batches_that_stepped
    if (step + 1) % max(1, trainer.log_every_n_steps):  # type: ignore[attr-defined]
        return {}
    figures = {
        name: float(value)
        for name, value in trainer.logged_metrics.items()
        if name.startswith("train/")
    }
    return {"step": step, "epoch": trainer.current_epoch, **figures}


def requeue() -> bool:
    """Has SLURM start the job that this process runs in once more, from its queue.

    Returns:
        Whether it will be; false outside of a job.
    """
    number = SLURMEnvironment.job_id()
    if number is None:
        return False
    array, task = (os.environ.get(f"SLURM_ARRAY_{what}_ID") for what in ("JOB", "TASK"))
    name = f"{array}_{task}" if array and task else str(number)
    command = ["scontrol", "requeue", name]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip()
        log.warning("The SLURM job could not be requeued: %s: %s", " ".join(command), reason)
        return False
    return True
