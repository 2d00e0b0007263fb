"""The ranker of SRR as a LightningModule."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from es2_lightning.backbone.ranker import ResponseRanker
from es2_lightning.backbone.row_noise import RowNoise
from es2_lightning.backbone.sampling import row_seed
from es2_lightning.objectives.ranking import RANKING_LOSSES
from es2_lightning.objectives.ranking_names import RankingObjective
from es2_lightning.training.across_ranks import mean_over_ranks
from es2_lightning.training.ranking.batches import RankingBatch


class RankerModule(L.LightningModule):
    """Fits a ranker to the labels of lists; the model whose states it reads is not here.

    The learning rate falls to 0 over the epochs as a half cosine. The weights of the epoch with the
    least validation loss are kept.

    Args:
        ranker: What trains.
        objective: The loss.
        optimizer: From parameters to an optimizer, such as `partial(AdamW, lr=1e-3)`.
        max_epochs: How many.
        seed: Of the dropout.

    Attributes:
        best_weights: The kept state dict; None before the first validation.
        best_epoch: Its epoch, counted from 1.
        best: Its figures: `loss` and `top1`, the share of lists whose best-scored response has a
            label above 0.
    """

    def __init__(
        self,
        ranker: ResponseRanker,
        *,
        objective: RankingObjective,
        optimizer: Callable[..., Optimizer],
        max_epochs: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.ranker = ranker
        self.objective = RANKING_LOSSES[objective]
        self.make_optimizer = optimizer
        self.max_epochs = max_epochs
        self.seed = seed
        self.best_weights: dict[str, Tensor] | None = None
        self.best_epoch = 0
        self.best: dict[str, float] = {"loss": math.inf, "top1": 0.0}
        self._validated: list[Tensor] = []

    def training_step(self, batch: RankingBatch, batch_idx: int) -> Tensor:
        """The mean loss over the lists of the whole batch."""
        noise = RowNoise(
            row_seed(self.seed, "dropout", batch.number), rows=batch.rows, total=batch.total
        )
        losses_N, top1_N = self._lists(batch, noise)
        loss = mean_over_ranks(losses_N)
        top1 = mean_over_ranks(top1_N)
        self.log_dict({"train/loss": loss.value, "train/top1": top1.value}, batch_size=batch.total)
        return loss.share

    def validation_step(self, batch: RankingBatch, batch_idx: int) -> None:
        """The same without dropout."""
        self._validated.append(torch.stack(self._lists(batch, None), dim=1))

    def on_validation_epoch_end(self) -> None:
        """Keep the weights if they are the best so far."""
        figures_N2 = torch.cat(self._validated)
        self._validated.clear()
        found = {
            name: float(mean_over_ranks(column).value)
            for name, column in zip(("loss", "top1"), figures_N2.unbind(1), strict=True)
        }
        for name, value in found.items():
            # The same on all processes already; Lightning only wants to be told.
            self.log(f"validation/{name}", value, sync_dist=self.trainer.world_size > 1)
        if found["loss"] < self.best["loss"]:
            self.best, self.best_epoch = found, self.current_epoch + 1
            self.best_weights = {k: v.detach().clone() for k, v in self.ranker.state_dict().items()}

    def on_train_epoch_end(self) -> None:
        """The epochs are counted here; the trainer's own count has no end."""
        if self.current_epoch + 1 >= self.max_epochs:
            self.trainer.should_stop = True

    def configure_optimizers(self) -> Any:
        """One optimizer over all weights, and its learning rate's way down."""
        optimizer = self.make_optimizer(self.ranker.parameters())
        batches = len(self.trainer.datamodule.train_dataloader())  # type: ignore[attr-defined]
        steps = self.max_epochs * math.ceil(batches / self.trainer.accumulate_grad_batches)
        falling = LambdaLR(optimizer, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / steps))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": falling, "interval": "step"},
        }

    def _lists(self, batch: RankingBatch, noise: RowNoise | None) -> tuple[Tensor, Tensor]:
        """Of each list: its loss (N,), and whether its best-scored response is good (N,)."""
        scores_NM = self.ranker(batch.instructions_ND, batch.responses_NMD, batch.present_NM, noise)
        losses_N = self.objective(scores_NM, batch.labels_NM, batch.present_NM)
        chosen_N1 = scores_NM.detach().argmax(1, keepdim=True)
        top1_N = (batch.labels_NM.gather(1, chosen_N1).squeeze(1) > 0).to(losses_N)
        return losses_N, top1_N
