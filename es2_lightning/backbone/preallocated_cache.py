"""A key-value cache with room for what will be generated.

transformers' `DynamicLayer` copies all keys and values for each new token; with hundreds of short
rows that copying takes as long as the model's own work.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer


class PreallocatedLayer(DynamicLayer):
    """Some rows of a `DynamicLayer`, with room for more positions.

    Args:
        source: The layer whose rows are taken; it is not changed.
        rows: (B,) indices, each row any number of times.
        room: How many positions may be added.
    """

    def __init__(self, source: DynamicLayer, rows: Tensor, room: int) -> None:
        super().__init__()
        assert source.keys is not None and source.values is not None, "the prefix was not run"
        self.keys: Tensor
        self.values: Tensor
        self.dtype, self.device = source.dtype, source.device
        self.is_initialized = True
        self._key_room = _with_room(source.keys, rows, room)
        self._value_room = _with_room(source.values, rows, room)
        self._show(source.keys.shape[-2])

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add (B, heads, positions, D) keys and values; returns all so far."""
        start = self.keys.shape[-2]
        end = start + key_states.shape[-2]
        self._key_room[:, :, start:end] = key_states
        self._value_room[:, :, start:end] = value_states
        self._show(end)
        return self.keys, self.values

    def _show(self, length: int) -> None:
        self.keys = self._key_room[:, :, :length]
        self.values = self._value_room[:, :, :length]


def select_rows(cache: Any, rows: Tensor, *, room: int) -> Any:
    """A cache of some rows of another, which stays as it is.

    Args:
        cache: transformers' cache. Layers of other kinds, such as sliding windows, are copied as
            they are and grow as transformers grows them.
        rows: (B,) indices, each row any number of times.
        room: How many positions will be added.
    """
    selected = copy.copy(cache)
    selected.layers = []
    for layer in cache.layers:
        if type(layer) is DynamicLayer:
            selected.layers.append(PreallocatedLayer(layer, rows, room))
        else:
            copied = copy.deepcopy(layer)
            copied.batch_select_indices(rows)
            selected.layers.append(copied)
    return selected


def _with_room(states: Tensor, rows: Tensor, room: int) -> Tensor:
    """(P, heads, T, D) → (B, heads, T + room, D), the room unwritten."""
    _, heads, length, width = states.shape
    whole = torch.empty(
        (len(rows), heads, length + room, width), dtype=states.dtype, device=states.device
    )
    whole[:, :, :length] = states[rows]
    return whole
