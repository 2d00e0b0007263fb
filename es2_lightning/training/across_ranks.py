"""What the ranks of a run tell each other in a step, so that they take one step together.

A trainer averages gradients over its ranks. A term that is a mean over the whole batch is therefore
computed on each rank as its own share times the number of ranks; then the average of the gradients
is the gradient of the whole. Alone, nothing is told to anybody.

Shape legend: B this rank's rows, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Mean:
    """A mean over the rows of all ranks.

    Attributes:
        value: The same on all ranks, without a gradient; 0 where there are no rows.
        share: What is differentiated: its average over the ranks is `value`.
        count: Rows of all ranks.
    """

    value: Tensor
    share: Tensor
    count: int


def mean_over_ranks(values_B: Tensor) -> Mean:
    """The mean of one number a row, over all rows of all ranks; collective.

    Args:
        values_B: This rank's; there may be none.
    """
    total = values_B.sum()
    size = number_of_ranks()
    if size == 1:
        mean = total / max(1, len(values_B))
        return Mean(mean.detach(), mean, len(values_B))
    both = torch.stack([total.detach().double(), total.new_tensor(len(values_B)).double()])
    dist.all_reduce(both)
    count = int(both[1])
    divisor = max(1, count)
    return Mean((both[0] / divisor).to(total), total * (size / divisor), count)


def states_of_all_ranks(states: dict[int, Tensor]) -> dict[int, Tensor]:
    """Each layer's states of all ranks' rows, in the order of ranks; collective.

    Gradients reach this rank's own rows only: each rank differentiates for its own.

    Args:
        states: Layer to (B, D); every rank has the same layers, and any number of rows.
    """
    size = number_of_ranks()
    if size == 1:
        return states
    rank = dist.get_rank()
    layers = sorted(states)
    own = torch.stack([states[layer] for layer in layers], dim=1)
    counts = [torch.zeros(1, dtype=torch.long, device=own.device) for _ in range(size)]
    dist.all_gather(counts, torch.tensor([len(own)], device=own.device))
    lengths = [int(count) for count in counts]
    padded = own.detach().new_zeros(max(lengths), *own.shape[1:])
    padded[: len(own)] = own.detach()
    gathered = [torch.empty_like(padded) for _ in range(size)]
    dist.all_gather(gathered, padded)
    parts = [part[:length] for part, length in zip(gathered, lengths, strict=True)]
    parts[rank] = own
    everybodys = torch.cat(parts)
    return {layer: everybodys[:, i] for i, layer in enumerate(layers)}


def number_of_ranks() -> int:
    """How many ranks there are; 1 alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def of_all_ranks(value: Any) -> list[Any]:
    """What each rank has, in the order of ranks; collective."""
    gathered = [value] * number_of_ranks()
    if len(gathered) > 1:
        dist.all_gather_object(gathered, value)
    return gathered
