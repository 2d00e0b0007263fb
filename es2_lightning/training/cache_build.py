"""The reference's outputs, computed before training."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import lightning as L

from es2_lightning.training.staged_module import StagedModule

if TYPE_CHECKING:
    from es2_lightning.backbone.reference_cache import CacheCost, CachedReference
    from es2_lightning.training.datamodule import PromptDataModule

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]


class CacheBuild(L.Callback):
    """Fills a reference cache for all batches that training can come to, and for validation.

    At the last moment at which all weights are the base model's: processes know each other, and no
    checkpoint is loaded yet.

    Args:
        reference: The cached reference.
        progress: Shows how far it is; on one process.

    Attributes:
        cost: What it took; None before.
    """

    def __init__(
        self,
        reference: CachedReference,
        *,
        progress: Callable[[], AbstractContextManager[Progress]] | None = None,
    ) -> None:
        self._reference = reference
        self._progress = progress
        self.cost: CacheCost | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Compute what is missing, in the precision of the training step."""
        datamodule: PromptDataModule = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(pl_module, StagedModule)
        batches = pl_module.most_batches(
            steps_per_epoch=math.ceil(
                len(datamodule.train_dataloader()) / trainer.accumulate_grad_batches
            ),
            accumulate=trainer.accumulate_grad_batches,
        )
        shown = self._progress if trainer.is_global_zero else None
        precision = trainer.precision_plugin.forward_context()
        with shown() if shown else nullcontext() as progress, precision:
            self.cost = self._reference.ensure(
                datamodule.output_rows(batches=batches), progress=progress
            )
        log.info("Reference cache: %s", self.cost)
