"""The processes of a run that work together, through torch.distributed where it is running."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """This process's number and how many there are; alone, nothing of torch.distributed is used."""

    rank: int
    size: int

    @classmethod
    def here(cls) -> Ranks:
        """Those of the running process group."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls(0, 1)

    def barrier(self) -> None:
        """Wait for all."""
        if self.size > 1:
            dist.barrier()

    def union(self, numbers: Collection[int]) -> list[int]:
        """Every number that any of them has, ascending; the same for all."""
        if self.size == 1:
            return sorted(numbers)
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, list(numbers))
        return sorted({number for some in gathered for number in some})

    def others(
        self, own: Sequence[tuple[Any, Mapping[str, Tensor]]]
    ) -> Iterator[tuple[Any, dict[str, Tensor]]]:
        """What the others have, on the host; each item a small object and tensors."""
        if self.size == 1:
            return
        # NCCL sends from GPUs only.
        gpu = dist.get_backend() == "nccl"
        device = torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")
        for source in range(self.size):
            mine = source == self.rank
            count = self._broadcast(len(own), source)
            for i in range(count):
                what, tensors = own[i] if mine else (None, {})
                shapes = {name: (t.dtype, t.shape) for name, t in tensors.items()}
                what, shapes = self._broadcast((what, shapes), source)
                received = {}
                for name, (dtype, shape) in shapes.items():
                    sent = tensors[name].to(device) if mine else torch.empty(shape, dtype=dtype)
                    # As bytes: not every backend knows every dtype.
                    raw = sent.to(device).contiguous().view(-1).view(torch.uint8)
                    dist.broadcast(raw, source)
                    received[name] = raw.view(dtype).view(shape).cpu()
                if not mine:
                    yield what, received

    @staticmethod
    def _broadcast(value: Any, source: int) -> Any:
        box = [value]
        dist.broadcast_object_list(box, source)
        return box[0]
