"""Which prompts meet in which batch: a pure function of the seed and the batch's number.

Hence a resumed run goes on at the very batch where the stopped one was, whatever the moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from es2_lightning.backbone.token_rows import TokenRow


@dataclass(frozen=True)
class PairedBatch:
    """Harmless and harmful prompts that meet in one separation loss; on the host.

    Attributes:
        rows: B rows, harmless ones first. The output positions are those whose KL counts; a row
            without any has no KL term.
        harmful: Of each row.
    """

    rows: tuple[TokenRow, ...]
    harmful: tuple[bool, ...]

    def to(self, device: torch.device | str) -> PairedBatch:
        """The same batch: Lightning asks, but layouts of it are what goes to a device."""
        return self

    def micro_batches(self, size: int | None) -> list[list[int]]:
        """Row numbers of parts of about `size` rows, each with its share of both classes."""
        total = len(self.rows)
        parts = 1 if size is None else -(-total // size)
        # Dealing the rows out in order gives each part its share, as harmless ones come first.
        return [list(range(k, total, parts)) for k in range(parts)]


class PairedBatches:
    """An endless plan of batches, walked one epoch at a time. An epoch passes the harmful prompts.

    Both classes are shuffled independently; each class is passed completely before it is shuffled
    again, so the shorter one is cycled. The last batch of an epoch is filled from the next pass.

    Args:
        collate: Turns harmless and harmful prompt numbers into a batch.
        num_harmless: How many harmless prompts there are.
        num_harmful: How many harmful prompts there are.
        harmless_per_batch: Harmless prompts a batch.
        harmful_per_batch: Harmful prompts a batch.
        seed: Of both shuffles.
        shuffle: Off for validation.
        rank: Which rank's share of each batch is collated.
        ranks: How many share a batch; the numbers above are of all of them together.
    """

    def __init__(
        self,
        collate: Callable[[list[int], list[int]], PairedBatch],
        *,
        num_harmless: int,
        num_harmful: int,
        harmless_per_batch: int,
        harmful_per_batch: int,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self._rank, self._ranks = rank, ranks
        self._collate = collate
        self._sizes = (num_harmless, num_harmful)
        self._per_batch = (harmless_per_batch, harmful_per_batch)
        self._seed = seed
        self._shuffle = shuffle
        self._next = 0
        self._permutations: dict[tuple[int, int], list[int]] = {}

    def __len__(self) -> int:
        return -(-self._sizes[1] // self._per_batch[1])

    def __iter__(self) -> Iterator[PairedBatch]:
        if not self._shuffle:
            self._next = 0
        # A resumed epoch goes on where it was; a complete one is followed by the next.
        while True:
            number = self._next
            # Counted before the batch is handed out: a checkpoint written after its step must not
            # repeat it.
            self._next += 1
            # Dealt out in turn: shares differ by one prompt of each class at the most.
            harmless, harmful = (some[self._rank :: self._ranks] for some in self.indices(number))
            yield self._collate(harmless, harmful)
            if self._next % len(self) == 0:
                return

    def indices(self, number: int) -> tuple[list[int], list[int]]:
        """The harmless and the harmful prompts of batch `number`, counted from the first epoch."""
        harmless, harmful = (
            [self._prompt(group, number * per_batch + i) for i in range(per_batch)]
            for group, per_batch in enumerate(self._per_batch)
        )
        return harmless, harmful

    def _prompt(self, group: int, position: int) -> int:
        size = self._sizes[group]
        shuffled_pass, offset = divmod(position, size)
        if not self._shuffle:
            return offset
        return self._permutation(group, shuffled_pass)[offset]

    def _permutation(self, group: int, shuffled_pass: int) -> list[int]:
        key = (group, shuffled_pass)
        if key not in self._permutations:
            # A batch touches two passes at the most; forget those long gone.
            for old in [
                k for k in self._permutations if k[0] == group and k[1] < shuffled_pass - 1
            ]:
                del self._permutations[old]
            generator = np.random.default_rng([self._seed, group, shuffled_pass])
            self._permutations[key] = generator.permutation(self._sizes[group]).tolist()
        return self._permutations[key]

    def state_dict(self) -> dict[str, Any]:
        """The position, for Lightning's checkpoint."""
        return {"next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at a saved position."""
        self._next = int(state["next"])
