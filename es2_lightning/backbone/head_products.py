"""Products with a head's weight in float32, whatever the dtype that the weight is kept in.

A head in bf16 would leave noise in a KL that is as large as the KL itself.

Shape legend: P positions, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

import torch
from torch import Tensor

CAST_ENTRIES = 2**23
"""Of the weight that are cast at a time: 32 MiB in float32."""


BLOCK_ENTRIES = {"cpu": 2**19}
"""Of a (P, V) tensor that temporaries are made for at a time; on a CPU they stay in its cache."""
OTHER_BLOCK_ENTRIES = 2**22
"""16 MiB in float32; smaller ones would leave a GPU waiting for its host."""

ADDS_BF16_IN_FLOAT32 = {"cuda"} if torch.version.cuda is not None else set()
"""Devices with a product of bf16 matrices whose result is float32."""


def wide_dtype(states: Tensor) -> torch.dtype:
    """What states are computed with in: float32, or float64 for float64 states."""
    return torch.float64 if states.dtype == torch.float64 else torch.float32


def without_autocast(states: Tensor) -> AbstractContextManager[object]:
    """Inside, products are computed in the dtype of their operands."""
    kind = states.device.type
    if not torch.amp.is_autocast_available(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def multiplies_bf16(states: Tensor, weight_VD: Tensor) -> bool:
    """Whether bf16 operands are multiplied as they are, and added up in float32."""
    both = states.dtype == weight_VD.dtype == torch.bfloat16
    return both and weight_VD.device.type in ADDS_BF16_IN_FLOAT32


def scores(states_PD: Tensor, weight_VD: Tensor) -> Tensor:
    """states · Wᵀ, (P, V), in float32 or, for float64 states, in float64; not differentiable."""
    dtype = wide_dtype(states_PD)
    if multiplies_bf16(states_PD, weight_VD):
        return torch.ops.aten.mm.dtype(states_PD, weight_VD.T, dtype)
    states_PD = states_PD.to(dtype)
    if weight_VD.dtype == dtype:
        return torch.mm(states_PD, weight_VD.T)
    out_PV = states_PD.new_empty(len(states_PD), len(weight_VD))
    for rows, block in _cast(weight_VD, dtype):
        torch.mm(states_PD, block.T, out=out_PV[:, rows])
    return out_PV


def combined(
    coefficients_PV: Tensor, weight_VD: Tensor, *, bf16_terms: int | None = None
) -> Tensor:
    """coefficients · W, (P, D), in the coefficients' dtype; not differentiable.

    Args:
        coefficients_PV: float32 or float64.
        weight_VD: In any dtype.
        bf16_terms: Where it is given, the coefficients are written as a sum of so many bf16
            tensors, each of which is multiplied with the bf16 weight: the error is 2⁻⁹ of a
            coefficient with one, and 2⁻¹⁸ with two, for which the coefficients are overwritten.
    """
    if bf16_terms is not None:
        out_PD = coefficients_PV.new_zeros(len(coefficients_PV), weight_VD.shape[1])
        for left in reversed(range(bf16_terms)):
            term = coefficients_PV.bfloat16()
            out_PD += torch.ops.aten.mm.dtype(term, weight_VD, torch.float32)
            if left:
                coefficients_PV -= term
        return out_PD
    dtype = coefficients_PV.dtype
    if weight_VD.dtype == dtype:
        return torch.mm(coefficients_PV, weight_VD)
    out_PD = coefficients_PV.new_zeros(len(coefficients_PV), weight_VD.shape[1])
    for rows, block in _cast(weight_VD, dtype):
        # Not addmm_, which torch's FLOP counter overlooks.
        torch.addmm(out_PD, coefficients_PV[:, rows], block, out=out_PD)
    return out_PD


def _cast(weight_VD: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    size = max(1, CAST_ENTRIES // weight_VD.shape[1])
    for start in range(0, len(weight_VD), size):
        rows = slice(start, start + size)
        yield rows, weight_VD[rows].to(dtype)


def chunks(positions: int, size: int | None) -> list[slice]:
    """So many positions in slices of at most `size`, as even as can be."""
    if not positions:
        return []
    number = 1 if size is None else -(-positions // size)
    edges = [positions * i // number for i in range(number + 1)]
    return [slice(start, end) for start, end in pairwise(edges)]


def row_blocks(values_PV: Tensor) -> list[slice]:
    """The rows in slices so small that a few temporaries of one do not count."""
    entries = BLOCK_ENTRIES.get(values_PV.device.type, OTHER_BLOCK_ENTRIES)
    return chunks(len(values_PV), max(1, entries // values_PV.shape[1]))
