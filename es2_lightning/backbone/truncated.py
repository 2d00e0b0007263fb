"""Forward passes that end after a layer: what lies above it is not computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from es2_lightning.backbone.layer_numbers import resolve_layer
from es2_lightning.backbone.structure import find_structure
from es2_lightning.errors import UserError


@contextmanager
def truncated(model: nn.Module, layer: int) -> Iterator[None]:
    """Only blocks 1 … `layer` run inside the `with`; afterwards the model is whole again.

    Hidden states up to that layer are the whole model's, bit by bit. What the model returns is
    not: it is that layer's state through the final norm and the head. `logits_to_keep=1` keeps the
    head's part small.

    Weights, modes, hooks and adapters stay as they are, so gradients and activation checkpointing
    work. The blocks left out are out of the module tree meanwhile: take no state dict inside.

    Args:
        model: A causal LM, or a peft model around one.
        layer: 1 … L, or negative from the end.

    Raises:
        UserError: Out of range, or 0: the input embeddings are there before any block runs.
    """
    structure = find_structure(model)
    whole = structure.blocks
    number = resolve_layer(layer, len(whole))
    if number == 0:
        raise UserError("layers: layer 0 is what enters block 1; accepted here are 1 … L")
    if number == len(whole):
        yield
        return
    setattr(structure.owner, structure.name, nn.ModuleList(list(whole)[:number]))
    try:
        yield
    finally:
        setattr(structure.owner, structure.name, whole)
