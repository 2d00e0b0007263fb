"""Which rows a reference cache computes, in which passes, and what they take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from es2_lightning.backbone.row_store import row_key
from es2_lightning.backbone.token_rows import TokenRow

PASS_TOKENS = 8192
PASS_ROWS = 128
"""The most in one pass of a build."""


def distinct(rows: Iterable[TokenRow]) -> dict[bytes, TokenRow]:
    """Rows with outputs, trimmed, by their keys: each once."""
    return {row_key(row): trimmed(row) for row in rows if row.output_positions}


def trimmed(row: TokenRow) -> TokenRow:
    """A row with outputs, without the tokens behind the last one: nothing depends on them."""
    end = row.output_positions[-1]
    return replace(row, token_ids=row.token_ids[: end + 1], last_prompt_index=end)


def plan_passes(rows: Sequence[TokenRow], *, tokens: int) -> list[list[TokenRow]]:
    """Rows of like lengths together, longest first, so that memory that suffices once suffices.

    Args:
        rows: To be computed.
        tokens: The most in one pass, padding included; a longer row has one of its own.
    """
    passes: list[list[TokenRow]] = []
    for row in sorted(rows, key=lambda row: -row.needed_length):
        if passes and len(passes[-1]) < PASS_ROWS:
            longest = passes[-1][0].needed_length
            if longest * (len(passes[-1]) + 1) <= tokens:
                passes[-1].append(row)
                continue
        passes.append([row])
    return passes


def cache_bytes(rows: Iterable[TokenRow], *, hold: str, width: int, dtype: torch.dtype) -> int:
    """What a cache of some rows takes, in bytes.

    Args:
        rows: Equal ones count once.
        hold: `hidden_states` or `statistics`.
        width: D.
        dtype: Of hidden states; statistics are held in float32, and one of them in float64.
    """
    outputs = sum(len(row.output_positions) for row in distinct(rows).values())
    return outputs * (width * 4 + 8 if hold == "statistics" else width * dtype.itemsize)
