"""torch.compile on a model's blocks."""

from __future__ import annotations

import torch
from torch import nn

from es2_lightning.backbone.structure import find_structure


def compile_blocks(model: nn.Module) -> None:
    """Compile each block's forward; hooks and packed attention stay outside of what is compiled.

    All blocks share one compilation, and sizes are dynamic, as no two batches have the same.
    """
    for block in find_structure(model).blocks:
        block.forward = torch.compile(block.forward, dynamic=True)
