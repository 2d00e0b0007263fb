"""The reference's outputs, computed before training."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import lightning as L

if TYPE_CHECKING:
    from es2_lightning.backbone.reference_cache import CachedReference
    from es2_lightning.training.datamodule import PromptDataModule

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]


class CacheBuild(L.Callback):
    """Fills a reference cache for all batches of training and validation.

    At the last moment at which all weights are the base model's: processes know each other, and no
    checkpoint is loaded yet.

    Args:
        reference: The cached reference.
        progress: Shows how far it is; on one process.
    """

    def __init__(
        self,
        reference: CachedReference,
        *,
        progress: Callable[[], AbstractContextManager[Progress]] | None = None,
    ) -> None:
        self._reference = reference
        self._progress = progress

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Compute what is missing, in the precision of the training step."""
        datamodule: PromptDataModule = trainer.datamodule  # type: ignore[attr-defined]
        shown = self._progress if trainer.is_global_zero else None
        precision = trainer.precision_plugin.forward_context()
        with shown() if shown else nullcontext() as progress, precision:
            cost = self._reference.ensure(datamodule.output_rows(), progress=progress)
        log.info("Reference cache: %s", cost)
