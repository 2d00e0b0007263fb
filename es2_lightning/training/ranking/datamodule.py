"""Labelled lists of responses as Lightning wants them."""

from __future__ import annotations

import lightning as L

from es2_lightning.backbone.labelled_lists import LabelledLists
from es2_lightning.errors import UserError
from es2_lightning.training.ranking.batches import RankingBatches


class ListsDataModule(L.LightningDataModule):
    """Batches of lists; with several processes, each has its share of every batch.

    Args:
        train: What the ranker is fitted on.
        validation: What chooses the epoch whose weights are kept; there may be none.
        lists_per_batch: All processes together.
        foreign_instructions: See `RankingBatches`; of training batches.
        seed: Of the shuffles.

    Raises:
        UserError: There is nothing to fit on, or the splits were read differently.
    """

    def __init__(
        self,
        train: LabelledLists,
        validation: LabelledLists,
        *,
        lists_per_batch: int,
        foreign_instructions: float = 0.0,
        seed: int,
    ) -> None:
        super().__init__()
        train.good_and_bad()
        if len(validation) and validation.states.reading != train.states.reading:
            raise UserError(
                "the validation lists' states were read at another layer or token than the "
                "training lists'; accepted are states of one reading"
            )
        self.train = train
        self.validation = validation
        self.lists_per_batch = lists_per_batch
        self.foreign_instructions = foreign_instructions
        self.seed = seed

    def train_dataloader(self) -> RankingBatches:
        """An epoch is one pass over the lists."""
        return self._batches(self.train, shuffle=True)

    def val_dataloader(self) -> RankingBatches:
        """The validation lists, in their order."""
        return self._batches(self.validation, shuffle=False)

    def _batches(self, lists: LabelledLists, *, shuffle: bool) -> RankingBatches:
        rank, ranks = 0, 1
        if self.trainer is not None:
            rank, ranks = self.trainer.global_rank, self.trainer.world_size
        return RankingBatches(
            lists,
            per_batch=self.lists_per_batch,
            seed=self.seed,
            shuffle=shuffle,
            foreign_instructions=self.foreign_instructions if shuffle else 0.0,
            rank=rank,
            ranks=ranks,
        )
