"""How rows of tokens are laid out for one forward pass: padded, or packed without padding.

All index arithmetic happens on the host, so a step waits for no device and runs on `meta` too.

Shape legend: B rows, T longest, N tokens in the pass, E outputs wanted, U of them computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate, chain, takewhile
from typing import Any, Literal

import torch
from torch import Tensor

from es2_lightning.backbone.packed_layout import PackedLayout, lay_out_packed
from es2_lightning.backbone.token_rows import TokenRow

Packing = Literal["off", "grid", "block_mask", "native"]


@dataclass(frozen=True)
class Layout:
    """The tensors of one forward pass.

    Attributes:
        input_ids: (B, T) padded on the right, or (1, N) packed.
        position_ids: Of the same shape; they restart with each row.
        attention_mask: (B, T), padded only.
        packed: How attention finds the rows of a packed pass; None: padded, or left to the kernel.
        packed_above: The same once rows were dropped.
        last_index: (B,), each row's last prompt token, in the flattened pass.
        kept: What goes on above the deepest layer that is read: rows (padded) or tokens (packed)
            by number; None: everything.
        output_index: (U,), in the flattened pass.
        output_of: (E,), which of the U computed ones an output is.
        output_row: (E,), the row of each output.
        first_output: (U,), the first output that each computed one is.
        outputs_per_row: (B,), at least 1, as a divisor.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor | None
    packed: PackedLayout | None
    packed_above: PackedLayout | None
    last_index: Tensor
    kept: Tensor | None
    output_index: Tensor
    output_of: Tensor
    output_row: Tensor
    first_output: Tensor
    outputs_per_row: Tensor

    @property
    def has_outputs(self) -> bool:
        """Whether anything above the deepest layer that is read is wanted."""
        return len(self.output_index) > 0

    @property
    def num_tokens(self) -> int:
        """How many positions the pass computes, padding included."""
        return self.input_ids.numel()

    def to(self, device: torch.device | str) -> Layout:
        """The same layout on another device."""
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            moved[field.name] = None if value is None else value.to(device)
        return replace(self, **moved)


def lay_out(
    rows: Sequence[TokenRow],
    *,
    packing: Packing = "off",
    share_prefix: bool = False,
    drop: bool = False,
    pad_token_id: int = 0,
) -> Layout:
    """Lay rows out for one forward pass.

    Args:
        rows: At least one. Tokens behind the last that matters are left out.
        packing: `off`: padded. `grid`, `block_mask`: packed, attention by `packed_attention`.
            `native`: packed, attention by a kernel that finds the rows by their positions.
        share_prefix: Compute the tokens that all rows begin with once; not with `off` or `native`.
        drop: Let rows without outputs end at the deepest layer that is read, which must lie below
            the last.
        pad_token_id: What padding is filled with; it is masked.
    """
    assert rows, "at least one row"
    assert not share_prefix or packing in ("grid", "block_mask")
    lengths = [row.needed_length for row in rows]
    prefix = shared_prefix_length(rows) if share_prefix else 0
    going_on = [i for i, row in enumerate(rows) if row.output_positions or not drop]
    above = going_on if 0 < len(going_on) < len(rows) else None
    longest = max(lengths)
    if packing == "off":
        starts, kept = [i * longest for i in range(len(rows))], above
    else:
        # Where each row's own tokens begin, behind the prefix.
        starts = [prefix, *(prefix + n for n in accumulate(length - prefix for length in lengths))]
        kept = None
        if above is not None:
            going = (range(starts[i], starts[i + 1]) for i in above)
            kept = [*range(prefix), *chain.from_iterable(going)]

    def flat(row: int, position: int) -> int:
        return position if position < prefix else starts[row] + position - prefix

    flat_outputs = [
        (i, flat(i, position)) for i, row in enumerate(rows) for position in row.output_positions
    ]
    computed = list(dict.fromkeys(index for _, index in flat_outputs))
    number = {index: k for k, index in enumerate(computed)}
    first: dict[int, int] = {}
    for entry, (_, index) in enumerate(flat_outputs):
        first.setdefault(index, entry)
    packed = packed_above = None
    if packing in ("grid", "block_mask"):
        own = [length - prefix for length in lengths]
        packed = lay_out_packed(own, prefix=prefix, masked=packing == "block_mask")
        if above is not None:
            packed_above = lay_out_packed(
                [own[i] for i in above], prefix=prefix, masked=packing == "block_mask"
            )
    ids, positions, mask = _tokens(rows, lengths, prefix, packing, pad_token_id)
    return Layout(
        input_ids=ids,
        position_ids=positions,
        attention_mask=mask,
        packed=packed,
        packed_above=packed_above,
        last_index=_long(flat(i, row.last_prompt_index) for i, row in enumerate(rows)),
        kept=None if kept is None else _long(kept),
        output_index=_long(computed),
        output_of=_long(number[index] for _, index in flat_outputs),
        output_row=_long(i for i, _ in flat_outputs),
        first_output=_long(first[index] for index in computed),
        outputs_per_row=_long(max(1, len(row.output_positions)) for row in rows),
    )


def shared_prefix_length(rows: Sequence[TokenRow]) -> int:
    """How many tokens all rows begin with; at least one token of each row stays its own."""
    if len(rows) < 2:
        return 0
    shortest = min(row.needed_length for row in rows)
    columns = zip(*(row.token_ids[: shortest - 1] for row in rows), strict=True)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def _tokens(
    rows: Sequence[TokenRow],
    lengths: Sequence[int],
    prefix: int,
    packing: Packing,
    pad_token_id: int,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Ids, positions and, where padded, the mask."""
    if packing != "off":
        ids, positions = list(rows[0].token_ids[:prefix]), list(range(prefix))
        for row, length in zip(rows, lengths, strict=True):
            ids += row.token_ids[prefix:length]
            positions += range(prefix, length)
        return _long(ids)[None], _long(positions)[None], None
    longest = max(lengths)
    padded = [
        [*row.token_ids[:length], *[pad_token_id] * (longest - length)]
        for row, length in zip(rows, lengths, strict=True)
    ]
    mask = [[1] * length + [0] * (longest - length) for length in lengths]
    positions_BT = torch.arange(longest).expand(len(rows), longest).contiguous()
    return torch.tensor(padded), positions_BT, torch.tensor(mask)


def _long(values: Any) -> Tensor:
    return torch.tensor(list(values), dtype=torch.long)
