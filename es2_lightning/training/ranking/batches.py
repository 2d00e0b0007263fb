"""Which lists meet in which batch: a pure function of the seed, the epoch and the batch's number.

Shape legend: N lists here, M responses of the batch's longest list, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from es2_lightning.backbone.labelled_lists import LabelledLists


@dataclass(frozen=True)
class RankingBatch:
    """This process's lists of a batch.

    Attributes:
        instructions_ND: Their instructions' states.
        responses_NMD: Their responses' states, padded as the whole batch is.
        labels_NM: How good each response is; 0 at padding.
        present_NM: Bool, which responses are there.
        rows: Which lists of the whole batch these are.
        total: Lists of the whole batch.
        number: Of the batch, counted from the first epoch.
    """

    instructions_ND: Tensor
    responses_NMD: Tensor
    labels_NM: Tensor
    present_NM: Tensor
    rows: tuple[int, ...]
    total: int
    number: int

    def to(self, device: torch.device | str) -> RankingBatch:
        """The same batch on another device."""
        moved: dict[str, Any] = {
            field.name: value.to(device)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)


class RankingBatches:
    """Batches of lists, walked one epoch at a time; an epoch passes every list once.

    Args:
        lists: All lists.
        per_batch: Lists of a batch, all processes together; an epoch's last may hold fewer.
        seed: Of the shuffles.
        shuffle: Off for validation.
        foreign_instructions: The share of a batch's lists, drawn anew in each epoch, that get the
            instruction of a list drawn from the same batch.
        rank: Which process's share of each batch is made.
        ranks: How many share a batch.
    """

    def __init__(
        self,
        lists: LabelledLists,
        *,
        per_batch: int,
        seed: int = 0,
        shuffle: bool = True,
        foreign_instructions: float = 0.0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self._lists = lists
        self._per_batch = per_batch
        self._seed = seed
        self._shuffle = shuffle
        self._foreign = foreign_instructions
        self._rank, self._ranks = rank, ranks
        self._epoch = 0

    def __len__(self) -> int:
        return -(-len(self._lists) // self._per_batch)

    def __iter__(self) -> Iterator[RankingBatch]:
        order = np.arange(len(self._lists))
        if self._shuffle:
            order = np.random.default_rng([self._seed, self._epoch]).permutation(order)
        first = self._epoch * len(self)
        self._epoch += 1
        for k in range(len(self)):
            chosen = order[k * self._per_batch : (k + 1) * self._per_batch].tolist()
            yield self._batch(chosen, first + k)

    def _batch(self, chosen: list[int], number: int) -> RankingBatch:
        # Padded alike on all processes, so that they drop alike.
        longest = max(len(self._lists.states.responses[i]) for i in chosen)
        rows = tuple(range(self._rank, len(chosen), self._ranks))
        own = self._lists.lists([chosen[row] for row in rows])
        asked = self._instructions(chosen, number)
        responses_NMD, present_NM = own.states.padded(longest)
        return RankingBatch(
            instructions_ND=self._lists.states.instructions_ND[asked[list(rows)]],
            responses_NMD=responses_NMD,
            labels_NM=own.padded_labels(longest),
            present_NM=present_NM,
            rows=rows,
            total=len(chosen),
            number=number,
        )

    def _instructions(self, chosen: list[int], number: int) -> np.ndarray:
        """Of each list of a batch, the list whose instruction it gets."""
        asked = np.array(chosen)
        if self._foreign == 0:
            return asked
        rng = np.random.default_rng([self._seed, number, len(chosen)])
        foreign = rng.random(len(chosen)) < self._foreign
        return np.where(foreign, rng.choice(asked, len(chosen)), asked)
