"""Changing hidden states while a model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from es2_lightning.backbone.hidden_states import layer_module
from es2_lightning.backbone.structure import find_structure, resolve_layer


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

    def replace(function: Callable[[Tensor], Tensor]) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (function(output[0]), *output[1:])
            return function(output)

        return hook

    try:
        for layer, function in interventions.items():
            number = resolve_layer(layer, len(structure.blocks))
            module = layer_module(structure, number)
            handles.append(module.register_forward_hook(replace(function)))
        yield
    finally:
        for handle in handles:
            handle.remove()
