"""What of a reference's outputs is held in a cache, and the outputs that it gives again.

Shape legend: E outputs: all output positions of all rows, in their order. D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from es2_lightning.backbone.adapters import adapter_off
from es2_lightning.backbone.head import linear_head
from es2_lightning.backbone.head_statistics import HeadStatistics, head_statistics
from es2_lightning.backbone.linear_head import LinearHead
from es2_lightning.backbone.reference import (
    HiddenOutputs,
    Logits,
    ReferenceOutputs,
    logits_without_adapter,
)


class Held(Protocol):
    """What of the outputs is held: columns of tensors, one entry for each output."""

    def columns(self, outputs: HiddenOutputs) -> dict[str, Tensor]:
        """What is held of some outputs, each (E, …)."""
        ...

    def outputs(self, columns: Mapping[str, Tensor]) -> ReferenceOutputs:
        """The outputs again, on the device of the columns."""
        ...

    def empty(self) -> dict[str, Tensor]:
        """The columns of no outputs."""
        ...


class HeldHiddenStates:
    """What left the final norm; any head can follow.

    Args:
        head: The frozen one.
        width: D.
        computed: The dtype in which the model computes.
        dtype: In which it is held; None: as it comes.
    """

    def __init__(
        self,
        head: LinearHead | Logits,
        *,
        width: int,
        computed: torch.dtype,
        dtype: torch.dtype | None = None,
    ) -> None:
        self._head, self._width, self._computed, self._dtype = head, width, computed, dtype

    def columns(self, outputs: HiddenOutputs) -> dict[str, Tensor]:
        """(E, D)."""
        return {"hidden_states": outputs.hidden_ED.to(self._dtype or outputs.hidden_ED.dtype)}

    def outputs(self, columns: Mapping[str, Tensor]) -> HiddenOutputs:
        """With the frozen head, wherever that has to be by now."""
        hidden = columns["hidden_states"]
        if isinstance(self._head, LinearHead) and self._head.weight_VD.device != hidden.device:
            self._head = _moved(self._head, hidden.device)
        return HiddenOutputs(
            hidden if self._dtype is None else hidden.to(self._computed), self._head
        )

    def empty(self) -> dict[str, Tensor]:
        """(0, D)."""
        return {"hidden_states": torch.empty(0, self._width, dtype=self._dtype or self._computed)}


class HeldStatistics:
    """Sufficient statistics of the next-token distributions; for a frozen linear head.

    Args:
        width: D.
        chunk: Outputs that pass through the head at a time.
    """

    def __init__(self, *, width: int, chunk: int | None = 256) -> None:
        self._width, self._chunk = width, chunk

    def columns(self, outputs: HiddenOutputs) -> dict[str, Tensor]:
        """(E,) and (E, D)."""
        assert isinstance(outputs.head, LinearHead), "statistics need a frozen linear head"
        found = head_statistics(outputs.hidden_ED, outputs.head, chunk=self._chunk)
        return {
            "negative_entropy": found.negative_entropy_P,
            "expected_weight": found.expected_weight_PD,
        }

    def outputs(self, columns: Mapping[str, Tensor]) -> HeadStatistics:
        """The statistics alone; no head is needed."""
        return HeadStatistics(columns["negative_entropy"], columns["expected_weight"])

    def empty(self) -> dict[str, Tensor]:
        """(0,) and (0, D)."""
        return {
            "negative_entropy": torch.empty(0, dtype=torch.float64),
            "expected_weight": torch.empty(0, self._width),
        }


def frozen_head(model: Any) -> LinearHead | Logits:
    """The base model's head, whatever training does to the model: a copy where it trains.

    Args:
        model: With its base weights; where its head is no plain linear map, with an adapter.
    """
    head = linear_head(model)
    if head is None:
        return logits_without_adapter(model, adapter_off)
    if not head.trains:
        return head
    bias = None if head.bias_V is None else head.bias_V.detach().clone()
    return replace(head, weight_VD=head.weight_VD.detach().clone(), bias_V=bias)


def _moved(head: LinearHead, device: torch.device) -> LinearHead:
    bias = None if head.bias_V is None else head.bias_V.to(device)
    return replace(head, weight_VD=head.weight_VD.to(device), bias_V=bias)
