"""Lightning's Trainer as a run needs it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger

from es2_lightning.errors import UserError
from es2_lightning.training.atomic_checkpoint_io import AtomicCheckpointIO
from es2_lightning.training.sharding import ShardedStrategy
from es2_lightning.training.strategy_names import SHARDED, check_strategy

NOT_LIGHTNINGS = {
    "max_epochs": "stages have budgets of their own: schedule.max_epochs",
    "max_steps": "stages have budgets of their own: schedule.max_steps",
    "callbacks": "callbacks are a config group: +callbacks.<name>._target_=…",
    "logger": "loggers are a config group: logger=csv, tensorboard or wandb",
}


def make_trainer(
    settings: Mapping[str, Any],
    *,
    folder: Path,
    loggers: Iterable[Logger],
    callbacks: list[L.Callback],
) -> L.Trainer:
    """The Trainer.

    Args:
        settings: Lightning's own words.
        folder: The run's folder.
        loggers: Where metrics go.
        callbacks: Beside Lightning's own.

    Raises:
        UserError: A word that Lightning does not know, or that has a better place.
    """
    words = dict(settings)
    for key, remedy in NOT_LIGHTNINGS.items():
        if key in words:
            raise UserError(f"trainer.{key}={words[key]}: {remedy}")
    check_strategy(words.get("strategy", "auto"))
    if (strategy := words.get("strategy")) in SHARDED:
        words["strategy"] = ShardedStrategy(offload=SHARDED[strategy])
    plugins = [*(words.pop("plugins", None) or []), AtomicCheckpointIO()]
    _quieten()
    try:
        return L.Trainer(
            **words,
            max_epochs=-1,
            default_root_dir=folder,
            logger=list(loggers),
            callbacks=callbacks,
            plugins=plugins,
            # The stages' display takes their place; a summary lists modules, not what trains.
            enable_progress_bar=False,
            enable_model_summary=False,
            # Otherwise Lightning would add a checkpoint of all weights of its own.
            enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
        )
    except (TypeError, ValueError, RuntimeError, MisconfigurationException) as error:
        raise UserError(f"trainer: {str(error).splitlines()[0]}") from error


def _quieten() -> None:
    """Leave out what Lightning says to everybody and what does not concern this run."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # Batches are made of a few strings.
        ".*LeafSpec.*is deprecated.*",  # Between Lightning and torch.
        ".*The number of training batches.*smaller than the logging interval.*",
        ".*is_gradient_checkpointing.*is deprecated.*",  # Between peft and transformers.
        ".*FSDP2-wrapped module .* returned a view tensor.*",  # Nothing is done to it in place.
    ):
        warnings.filterwarnings("ignore", message=message)
