"""From labelled lists to a ranker."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from torch.optim import Optimizer

from es2_lightning.backbone.labelled_lists import LabelledLists
from es2_lightning.backbone.ranker import ResponseRanker
from es2_lightning.backbone.ranker_shape import RankerShape
from es2_lightning.errors import UserError
from es2_lightning.objectives.ranking_names import RankingObjective
from es2_lightning.training.fitting import fit
from es2_lightning.training.ranking.datamodule import ListsDataModule
from es2_lightning.training.ranking.ranker_module import RankerModule
from es2_lightning.training.strategy_names import SHARDED
from es2_lightning.training.trainer import make_trainer

log = logging.getLogger(__name__)

ONE_CPU = {"accelerator": "cpu", "devices": 1, "gradient_clip_val": 1.0, "log_every_n_steps": 1}


def fit_ranker(
    train: LabelledLists,
    validation: LabelledLists,
    *,
    objective: RankingObjective,
    shape: RankerShape,
    optimizer: Callable[..., Optimizer],
    max_epochs: int,
    lists_per_batch: int,
    foreign_instructions: float = 0.0,
    seed: int = 0,
    trainer: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    loggers: Iterable[Logger] = (),
    callbacks: Iterable[L.Callback] = (),
) -> ResponseRanker:
    """Fit SRR's ranker; any number of processes gives the one-process result.

    Args:
        train: Its states' means and deviations are the ranker's.
        validation: What chooses the epoch whose weights are kept; without lists, the last one's.
        objective: The loss.
        shape: Of the ranker.
        optimizer: From parameters to an optimizer.
        max_epochs: Passes over the training lists.
        lists_per_batch: Of all processes together.
        foreign_instructions: The share of a batch's lists that get another list's instruction.
        seed: Of the first weights, the shuffles and the dropout.
        trainer: Lightning's own words; None: one CPU.
        folder: The run's; None: none is needed.
        loggers: Where metrics go.
        callbacks: Lightning's.

    Returns:
        On the CPU, in eval mode; the same in all processes.

    Raises:
        UserError: Lists without good or bad responses, a trainer that shards, or a training that
            came to no numbers.
    """
    settings = ONE_CPU if trainer is None else trainer
    if settings.get("strategy") in SHARDED:
        raise UserError(
            f"trainer.strategy={settings['strategy']}: a ranker is too small to be sharded; "
            "accepted are auto and ddp"
        )
    data = ListsDataModule(
        train,
        validation,
        lists_per_batch=lists_per_batch,
        foreign_instructions=foreign_instructions,
        seed=seed,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ranker = ResponseRanker(train.states.reading, shape)
    ranker.standardise_by(train.states)
    module = RankerModule(
        ranker, objective=objective, optimizer=optimizer, max_epochs=max_epochs, seed=seed
    )
    words = {"num_sanity_val_steps": 0, **settings}
    if not len(validation):
        words["limit_val_batches"] = 0
    with tempfile.TemporaryDirectory() as temporary:
        made = make_trainer(
            words,
            folder=Path(temporary) if folder is None else folder,
            loggers=loggers,
            callbacks=list(callbacks),
        )
        fit(made, module, data)
    if module.best_weights is None and "validation/loss" in made.callback_metrics:
        raise UserError(
            "the ranker's validation loss was no finite number after any epoch. Accepted: a "
            "smaller ranker.lr, or states without infinite values"
        )
    if module.best_weights is not None:
        ranker.load_state_dict(module.best_weights)
        log.info(
            "The ranker's weights are those after epoch %d of %d: validation loss %.4g, top-1 %.3f",
            *(module.best_epoch, max_epochs, module.best["loss"], module.best["top1"]),
        )
    return ranker.cpu().eval()
