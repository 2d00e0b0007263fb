"""Bytes that a callable keeps alive at its worst, counted storage by storage.

What counts is what tensors hold. What kernels allocate for themselves meanwhile, and what an
allocator rounds up or keeps back, does not. Hence a meta tensor counts like a real one.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from es2_lightning.training.cost.on_meta import meta_as_cpu


@dataclass(frozen=True)
class ByteCount:
    """Bytes beyond what was alive before.

    Attributes:
        peak: The most that was alive at once.
        kept: What is alive still after the callable, its result forgotten: gradients above all.
        allocated: The sum of all allocations, alive or not.
    """

    peak: int
    kept: int
    allocated: int


def count_bytes(function: Callable[[], Any], *, device: str | None = None) -> ByteCount:
    """Call the function once and count the storages that it makes.

    A storage counts once, whatever number of views it has, from the operator that made it until
    nothing refers to it: no tensor, and no node of autograd that saved one.

    Args:
        function: With its backward pass inside, if that is to be counted.
        device: Count storages on this type of device alone, such as `meta`; None: on all.
    """
    tracker = _LiveStorages(device)
    with meta_as_cpu(), tracker:
        function()
    return ByteCount(tracker.peak, tracker.live, tracker.allocated)


class _LiveStorages(TorchDispatchMode):
    def __init__(self, device: str | None) -> None:
        super().__init__()
        self.live = self.peak = self.allocated = 0
        self._device = device
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        for storage in _storages((args, kwargs)):
            # What no operator made before was there before.
            self._known.setdefault(storage, 0)
        result = func(*args, **kwargs)
        for storage in _storages(result):
            if storage not in self._known:
                self._made(storage)
        return result

    def _made(self, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        if self._device is not None and storage.device.type != self._device:
            size = 0
        self._known[storage] = size
        self.live += size
        self.allocated += size
        self.peak = max(self.peak, self.live)
        if size:
            weakref.finalize(storage, self._freed, size)

    def _freed(self, size: int) -> None:
        self.live -= size


def _storages(tree: Any) -> Iterator[torch.UntypedStorage]:
    for leaf in tree_leaves(tree):
        if isinstance(leaf, Tensor):
            yield leaf.untyped_storage()
