"""Dropout that does not depend on how a batch is shared out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class RowNoise:
    """Dropout masks of a whole batch, of which some rows are used here.

    All processes that share a batch draw the same masks and use their own rows of them, so that
    together they drop what one process would drop.

    Args:
        seed: Of this batch.
        rows: Which rows of the whole batch are here, in their order.
        total: Rows of the whole batch.
    """

    def __init__(self, seed: int, *, rows: Sequence[int], total: int) -> None:
        # On the host, so that every kind of device drops alike.
        self._generator = torch.Generator().manual_seed(seed)
        self._rows = torch.tensor(list(rows), dtype=torch.long)
        self._total = total

    def dropout(self, values: Tensor, p: float) -> Tensor:
        """(rows here, …) → the same with a share p of its values set to 0, the others scaled up."""
        if p == 0:
            return values
        drawn = torch.rand((self._total, *values.shape[1:]), generator=self._generator)
        kept = (drawn >= p)[self._rows].to(values.device)
        return values * kept / (1 - p)
