"""The epoch with which a resumed run goes on."""

from __future__ import annotations

import lightning as L


def count_next_epoch(trainer: L.Trainer) -> None:
    """Have the next epoch counted where the checkpoint was written at an epoch's last batch.

    To be called from `on_train_start`. Lightning 2.6 goes on with the next epoch as if it were
    still the one that is over, so that a checkpoint of the resumed run looks like one between two
    epochs: a run resumed from that one would begin its epoch again, at later batches.
    """
    progress = trainer.fit_loop.epoch_progress.total
    started: int = progress.started  # type: ignore[attr-defined]
    if trainer.fit_loop.restarted_mid_epoch and progress.completed == started:
        trainer.fit_loop.reset_restart_stage()
