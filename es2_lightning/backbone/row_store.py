"""What is held of rows of tokens, each found by a digest of its tokens; in this process's memory.

Shape legend: E outputs, that is all output positions of some rows, in their order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from es2_lightning.backbone.cache_fingerprint import Fingerprint, fingerprint_digest
from es2_lightning.backbone.ranks import Ranks
from es2_lightning.backbone.token_rows import TokenRow

KEY_BYTES = 16
MOST_KEPT = 4
"""Stores that outlive their users, for the next job of a sweep; the ones opened last."""


def row_key(row: TokenRow) -> bytes:
    """A digest of what a row's outputs depend on: its tokens up to the last output, and where the
    outputs are. Causal attention makes later tokens, and all other rows, irrelevant."""
    end = row.output_positions[-1] + 1
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for numbers in (row.token_ids[:end], row.output_positions):
        digest.update(np.asarray([len(numbers), *numbers], dtype="<i8").tobytes())
    return digest.digest()


@dataclass(frozen=True)
class Block:
    """Rows behind each other.

    Attributes:
        keys: Of each row.
        lengths: How many outputs each row has.
        columns: What is held of the outputs; each (E, …), on the host.
    """

    keys: tuple[bytes, ...]
    lengths: tuple[int, ...]
    columns: Mapping[str, Tensor]

    @property
    def nbytes(self) -> int:
        """Of what is held."""
        return sum(column.nbytes for column in self.columns.values())

    @classmethod
    def joined(cls, blocks: Sequence[Block]) -> Block:
        """Several, at least one, as one."""
        return cls(
            keys=tuple(key for block in blocks for key in block.keys),
            lengths=tuple(length for block in blocks for length in block.lengths),
            columns={
                name: torch.cat([block.columns[name] for block in blocks])
                for name in blocks[0].columns
            },
        )


class RowStore:
    """Rows in memory. With several processes, each holds all of them."""

    where = "in memory"

    def __init__(self) -> None:
        self._found: dict[bytes, tuple[Block, int, int]] = {}
        self._new: list[Block] = []
        self._building = False

    def __len__(self) -> int:
        return len(self._found)

    @property
    def num_outputs(self) -> int:
        """Over all rows."""
        return sum(length for _, _, length in self._found.values())

    @property
    def nbytes(self) -> int:
        """Of what is held, wherever it is."""
        return sum(
            block.nbytes for block in {id(b): b for b, _, _ in self._found.values()}.values()
        )

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """Which of the keys have no row here, by number."""
        return [i for i, key in enumerate(keys) if key not in self._found]

    def gather(self, keys: Sequence[bytes], *, pinned: bool = False) -> dict[str, Tensor]:
        """What is held of some rows, at least one, in their order: each (E, …).

        Args:
            keys: Of the rows.
            pinned: Into pages that a GPU reads without waiting.

        Raises:
            KeyError: A row is missing.
        """
        found = [self._found[key] for key in keys]
        total = sum(length for _, _, length in found)
        gathered = {}
        for name, column in found[0][0].columns.items():
            shape = (total, *column.shape[1:])
            out = torch.empty(shape, dtype=column.dtype, pin_memory=pinned)
            parts = [block.columns[name].narrow(0, start, n) for block, start, n in found]
            gathered[name] = torch.cat(parts, out=out)
        return gathered

    def add(self, block: Block) -> None:
        """Hold more rows."""
        if self._building:
            self._new.append(block)
        self._index(block)

    @contextmanager
    def building(self, ranks: Ranks) -> Iterator[None]:
        """Rows added inside the `with` are everybody's afterwards; all processes enter it."""
        self._building = True
        try:
            yield
            for (keys, lengths), columns in ranks.others(
                [((block.keys, block.lengths), block.columns) for block in self._new]
            ):
                self._index(Block(keys, lengths, columns))
        finally:
            self._building = False
            self._new.clear()

    def _index(self, block: Block) -> None:
        start = 0
        for key, length in zip(block.keys, block.lengths, strict=True):
            self._found[key] = (block, start, length)
            start += length


_KEPT: dict[str, RowStore] = {}


def memory_store(fingerprint: Fingerprint) -> RowStore:
    """The process's store for a fingerprint: what an earlier job held is there."""
    digest = fingerprint_digest(fingerprint)
    store = _KEPT.pop(digest, None)
    _KEPT[digest] = RowStore() if store is None else store
    while len(_KEPT) > MOST_KEPT:
        del _KEPT[next(iter(_KEPT))]
    return _KEPT[digest]


def drop_memory_stores() -> None:
    """Keep no store any longer; those in use live on until their users are gone."""
    _KEPT.clear()
