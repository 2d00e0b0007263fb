"""`Trainer.fit` with this project's manners: resuming, and being interrupted."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from es2_lightning.training.checkpoints import read_checkpoint

if TYPE_CHECKING:
    import lightning as L


def fit(
    trainer: L.Trainer,
    module: L.LightningModule,
    datamodule: L.LightningDataModule,
    *,
    ckpt_path: str | Path | None = None,
) -> None:
    """Train, from the start or from a checkpoint.

    Args:
        trainer: Lightning's trainer.
        module: What trains.
        datamodule: On what.
        ckpt_path: A checkpoint to go on from. Read with `weights_only=True`: it can hold no code.

    Raises:
        UserError: There is no such checkpoint, or it is none.
        KeyboardInterrupt: The user interrupted. Lightning by itself would exit with status 1, as
            if the run had failed, and leave Ctrl-C without effect.
    """
    if ckpt_path is not None:
        # Lightning's words for a file that is missing or broken say little.
        read_checkpoint(Path(ckpt_path))
    on_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if on_main_thread:
            signal.signal(signal.SIGINT, handler)
