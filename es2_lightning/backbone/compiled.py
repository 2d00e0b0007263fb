"""torch.compile on a model's blocks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from es2_lightning.backbone.structure import find_structure


def compile_blocks(model: nn.Module) -> None:
    """Compile each block's forward; hooks and packed attention stay outside of what is compiled.

    All blocks share one compilation, and sizes are dynamic, as no two batches have the same.
    """
    for block in find_structure(model).blocks:
        block.forward = _Compiled(block.forward)


class _Compiled:
    """A block's forward, compiled but for generation, whose cache would compile it over and over.

    A copy of the block has a forward of its own that is not compiled: what torch.compile returns
    would run the original's weights.
    """

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward = forward
        self._compiled = torch.compile(forward, dynamic=True)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        generates = kwargs.get("past_key_values") is not None
        return (self._forward if generates else self._compiled)(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self._forward, memo)
