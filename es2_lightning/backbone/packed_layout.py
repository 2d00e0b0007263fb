"""Where the rows of a packed pass stand, as attention needs it.

Shape legend: N packed tokens, R rows of a grid, T its longest, P shared prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

MOST_GRIDS = 4
"""Each grid is a kernel launch; a few suffice to keep rows of like lengths together."""
LAUNCH = 1024
"""What a further grid must save, in query-key pairs a row of its own would cost."""


@dataclass(frozen=True)
class Grid:
    """Rows of like lengths, gathered onto (R, T); R · T entries, those beyond a row's end repeat
    its last token, which no other of its tokens attends to."""

    index: Tensor
    rows: int
    length: int


@dataclass(frozen=True)
class PackedLayout:
    """The rows of a packed pass: the shared prefix first, then each row's own tokens.

    Attributes:
        num_tokens: N.
        prefix: P.
        grids: The rows' own tokens, on grids; all rows in one where attention is masked by blocks.
        restore: (N,), where each token's output stands: the prefix's, then the grids', flattened.
        row: (N,), each token's row; -1 for the prefix.
        position: (N,), each token's position in its row.
        masked: Attention over all N tokens under a mask of blocks, instead of grids.
        masks: Masks that were built, by what they depend on; they serve all blocks of a pass.
    """

    num_tokens: int
    prefix: int
    grids: tuple[Grid, ...]
    restore: Tensor
    row: Tensor
    position: Tensor
    masked: bool
    masks: dict[tuple[object, ...], Tensor] = field(default_factory=dict, compare=False)

    def to(self, device: torch.device | str) -> PackedLayout:
        """The same layout on another device."""
        return replace(
            self,
            grids=tuple(replace(grid, index=grid.index.to(device)) for grid in self.grids),
            restore=self.restore.to(device),
            row=self.row.to(device),
            position=self.position.to(device),
            masks={},
        )

    def grid_mask(self, length: int, window: int | None) -> Tensor:
        """(1, 1, T, P + T) bool: which keys a row's own queries see. Rows need none of their own,
        since what is beyond a row's end stands behind all its queries."""
        key = ("grid", length, window)
        if key not in self.masks:
            device = self.row.device
            query = torch.arange(self.prefix, self.prefix + length, device=device)[:, None]
            position = torch.arange(self.prefix + length, device=device)[None]
            self.masks[key] = _seen(query, position, window)[None, None]
        return self.masks[key]

    def prefix_mask(self, window: int | None) -> Tensor:
        """(1, 1, P, P) bool."""
        key = ("prefix", window)
        if key not in self.masks:
            position = torch.arange(self.prefix, device=self.row.device)
            self.masks[key] = _seen(position[:, None], position[None], window)[None, None]
        return self.masks[key]

    def block_mask(self, window: int | None) -> Tensor:
        """(1, 1, N, N) bool: a token sees those before it of its own row and of the prefix."""
        key = ("block", window)
        if key not in self.masks:
            same = (self.row[:, None] == self.row[None]) | (self.row[None] == -1)
            seen = same & _seen(self.position[:, None], self.position[None], window)
            self.masks[key] = seen[None, None]
        return self.masks[key]


def lay_out_packed(own: Sequence[int], *, prefix: int, masked: bool) -> PackedLayout:
    """The layout of rows with so many tokens of their own behind a shared prefix.

    Args:
        own: Tokens of each row behind the prefix, each at least 1.
        prefix: P, the tokens shared by all rows.
        masked: Attend under a mask of blocks instead of on grids.
    """
    starts, end = [], prefix
    for length in own:
        starts.append(end)
        end += length
    grids, restore = [], list(range(end))
    offset = prefix
    for members in [] if masked else like_lengths(own, prefix):
        longest = max(own[i] for i in members)
        index = []
        for k, i in enumerate(members):
            tokens = range(starts[i], starts[i] + own[i])
            for t, token in enumerate(tokens):
                restore[token] = offset + k * longest + t
            index += [*tokens, *[tokens[-1]] * (longest - own[i])]
        grids.append(Grid(torch.tensor(index), len(members), longest))
        offset += len(members) * longest
    rows = [-1] * prefix + [i for i, length in enumerate(own) for _ in range(length)]
    positions = [*range(prefix)] + [prefix + t for length in own for t in range(length)]
    return PackedLayout(
        num_tokens=end,
        prefix=prefix,
        grids=tuple(grids),
        restore=torch.tensor(restore),
        row=torch.tensor(rows),
        position=torch.tensor(positions),
        masked=masked,
    )


def like_lengths(own: Sequence[int], prefix: int = 0) -> list[list[int]]:
    """Rows by number in at most `MOST_GRIDS` groups, so that attention computes few pairs.

    The best cut of the rows, sorted by length, into each number of groups, by dynamic programming.
    """
    order = sorted(range(len(own)), key=lambda i: (own[i], i))
    lengths = [own[i] for i in order]

    def cost(start: int, end: int) -> float:
        longest = lengths[end - 1]
        return LAUNCH + (end - start) * longest * (prefix + longest)

    ends = range(1, len(order) + 1)
    best: list[dict[int, tuple[float, list[int]]]] = [{0: (0.0, [])}]
    for _ in range(MOST_GRIDS):
        reached: dict[int, tuple[float, list[int]]] = {}
        for end in ends:
            options = [
                (total + cost(start, end), [*cuts, end])
                for start, (total, cuts) in best[-1].items()
                if start < end
            ]
            if options:
                reached[end] = min(options)
        best.append(reached)
    _, cuts = min(level[len(order)] for level in best[1:] if len(order) in level)
    return [order[a:b] for a, b in zip([0, *cuts[:-1]], cuts, strict=True)]


def _seen(query: Tensor, key: Tensor, window: int | None) -> Tensor:
    seen = key <= query
    return seen if window is None else seen & (key > query - window)
