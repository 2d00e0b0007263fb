"""Reading one state of each row of many lists; the rows of a list begin alike.

Where a model's rows can be packed (`choose_packing`), a pass holds one list, and what its rows
begin with, the instruction, is computed once. Elsewhere rows of all lists are padded together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from es2_lightning.backbone.cache_rows import plan_passes
from es2_lightning.backbone.layouts import Packing, lay_out
from es2_lightning.backbone.packing_choice import choose_packing
from es2_lightning.backbone.row_pass import run_rows
from es2_lightning.backbone.structure import causal_lm_of
from es2_lightning.backbone.token_rows import TokenRow

if TYPE_CHECKING:
    from es2_lightning.backbone.chat_model import ChatModel

SHARING: tuple[Packing, ...] = ("grid", "block_mask")
TRIED_ROWS = 3
_CHOSEN: WeakKeyDictionary[nn.Module, tuple[Any, Packing]] = WeakKeyDictionary()
"""The packing that was found exact for a model with an attention implementation."""


@torch.no_grad()
def read_lists(
    chat_model: ChatModel, lists: Sequence[Sequence[TokenRow]], *, layer: int, batch_tokens: int
) -> list[Tensor]:
    """Of each list, the states (its rows, D) at its rows' `last_prompt_index`; float32, on the CPU.

    Args:
        chat_model: Run as it is.
        lists: At least one row each.
        layer: 1 … L; blocks above it are not run.
        batch_tokens: About the most in one forward pass.
    """
    packing = _packing_of(chat_model.model, [row for rows in lists for row in rows])
    found: dict[TokenRow, Tensor] = {}
    for rows in _passes(lists, packing, batch_tokens):
        layout = lay_out(
            rows,
            packing=packing,
            share_prefix=packing in SHARING,
            pad_token_id=int(chat_model.tokenizer.pad_token_id or 0),
        )
        states = run_rows(chat_model.model, layout.to(chat_model.device), layers=[layer])
        found |= dict(zip(rows, states.layers[layer].float().cpu(), strict=True))
    return [torch.stack([found[row] for row in rows]) for rows in lists]


def _passes(
    lists: Sequence[Sequence[TokenRow]], packing: Packing, batch_tokens: int
) -> Iterator[list[TokenRow]]:
    """Each row once: a list may hold a response several times."""
    if packing not in SHARING:
        every = dict.fromkeys(row for rows in lists for row in rows)
        yield from plan_passes(list(every), tokens=batch_tokens)
        return
    for rows in lists:
        some: list[TokenRow] = []
        for row in dict.fromkeys(rows):
            if some and sum(r.needed_length for r in some) + row.needed_length > batch_tokens:
                yield some
                some = []
            some.append(row)
        yield some


def _packing_of(model: nn.Module, rows: Sequence[TokenRow]) -> Packing:
    attention = causal_lm_of(model).config._attn_implementation
    known = _CHOSEN.get(model)
    if known is not None and known[0] == attention:
        return known[1]
    tried = sorted(set(rows), key=lambda row: len(row.token_ids))[:TRIED_ROWS]
    chosen = choose_packing(model, "auto", tried)
    _CHOSEN[model] = (attention, chosen)
    return chosen
