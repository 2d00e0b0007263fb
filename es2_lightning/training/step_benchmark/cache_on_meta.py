"""A cached reference where nothing has values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from es2_lightning.backbone.chat_model import ChatModel
from es2_lightning.backbone.head import linear_head
from es2_lightning.backbone.head_statistics import HeadStatistics
from es2_lightning.backbone.reference import AdapterReference, HiddenOutputs, ReferenceOutputs
from es2_lightning.backbone.structure import causal_lm_of
from es2_lightning.backbone.token_rows import TokenRow


class CacheOnMeta:
    """What a cache gives, without its values: it cannot hold what has none.

    Args:
        chat_model: On `meta`.
        hold: `hidden_states` or `statistics`.
        width: D.
    """

    def __init__(self, chat_model: ChatModel, *, hold: str, width: int) -> None:
        self._chat_model, self._hold, self._width = chat_model, hold, width

    def outputs(self, rows: Sequence[TokenRow]) -> ReferenceOutputs:
        """Of all output positions of the rows."""
        number = sum(len(row.output_positions) for row in rows)
        with torch.device("meta"):
            if self._hold == "statistics":
                entropy = torch.empty(number, dtype=torch.float64)
                return HeadStatistics(entropy, torch.empty(number, self._width))
            head = linear_head(self._chat_model.model)
            assert head is not None
            dtype = causal_lm_of(self._chat_model.model).dtype
            return HiddenOutputs(torch.empty(number, self._width, dtype=dtype), head)

    def chat_model(self) -> Any:
        """As that of any reference."""
        return AdapterReference(self._chat_model).chat_model()

    def root(self) -> None:
        """It has no weights."""
