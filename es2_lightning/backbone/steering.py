"""Changing hidden states while a model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from es2_lightning.backbone.hidden_states import hook_layer
from es2_lightning.backbone.layer_numbers import resolve_layer
from es2_lightning.backbone.structure import find_structure


@contextmanager
def steer(
    model: nn.Module, interventions: Mapping[int, Callable[[Tensor], Tensor]]
) -> Iterator[None]:
    """Replace the outputs of some layers during the forward passes inside the `with`.

    Later layers see the changed states. The hooks are removed even when the body fails, and the
    weights are never touched.

    Args:
        model: A causal LM, or a peft model around one.
        interventions: Layer number to a function from (B, T, D) to a new (B, T, D) tensor; it
            must not edit its argument in place.
    """
    structure = find_structure(model)
    handles = []
    try:
        for layer, function in interventions.items():
            number = resolve_layer(layer, len(structure.blocks))
            handles.append(hook_layer(structure, number, function))
        yield
    finally:
        for handle in handles:
            handle.remove()
