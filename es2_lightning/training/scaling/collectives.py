"""Counts what a step's collectives move."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Each operator's payload: which of its arguments, an output or an input.
_PAYLOADS = {
    "_allgather_base_": ("all_gather", 0),
    "allgather_": ("all_gather", 0),
    "_reduce_scatter_base_": ("reduce_scatter", 1),
    "allreduce_": ("all_reduce", 0),
    "broadcast_": ("broadcast", 0),
}


class CountCollectives(TorchDispatchMode):
    """Inside the `with`: bytes and calls of each kind of collective that this process joins.

    Attributes:
        bytes: Kind to payload: of an all-gather its whole output, of a reduce-scatter its whole
            input, of the others the tensor. Operators of other kinds go by their own name.
        calls: Kind to how many.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.namespace == "c10d":
            name = func._schema.name.removeprefix("c10d::")
            kind, argument = _PAYLOADS.get(name, (name, 0))
            payload = [x for x in tree_leaves(args[argument]) if isinstance(x, Tensor)]
            self.bytes[kind] += sum(x.numel() * x.element_size() for x in payload)
            self.calls[kind] += 1
        return func(*args, **(kwargs or {}))
