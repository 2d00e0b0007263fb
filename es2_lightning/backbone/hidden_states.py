"""Reading hidden states by layer number, through hooks that live only inside a `with`.

Shape legend: B rows, T positions, D width, N prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from es2_lightning.backbone.structure import find_structure, resolve_layer

if TYPE_CHECKING:
    from es2_lightning.backbone.chat_model import ChatModel


@contextmanager
def capture_hidden_states(
    model: nn.Module, layers: Sequence[int], *, after_final_norm: bool = False
) -> Iterator[dict[int, Tensor]]:
    """Capture the outputs of the given layers during the forward passes inside the `with`.

    Layer L is read before the final norm, unlike transformers' `hidden_states[L]`, unless
    `after_final_norm` is set. Under re-entrant activation checkpointing hooks fire twice; the
    first firing of a layer is the one kept.

    Yields:
        A dict from layer number (0 … L) to a (B, T, D) tensor, filled by the forward pass.
    """
    structure = find_structure(model)
    depth = len(structure.blocks)
    states: dict[int, Tensor] = {}
    handles = []

    def store(layer: int) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            states.setdefault(layer, output[0] if isinstance(output, tuple) else output)

        return hook

    try:
        for layer in {resolve_layer(layer, depth) for layer in layers}:
            module = layer_module(structure, layer, after_final_norm=after_final_norm)
            handles.append(module.register_forward_hook(store(layer)))
        yield states
    finally:
        for handle in handles:
            handle.remove()


def layer_module(structure: Any, layer: int, *, after_final_norm: bool = False) -> nn.Module:
    """The module whose output is layer `layer`'s hidden state."""
    if layer == 0:
        return structure.embeddings
    if layer == len(structure.blocks) and after_final_norm:
        return structure.final_norm
    return structure.blocks[layer - 1]


def at_position(hidden: Tensor, index: Tensor) -> Tensor:
    """Each row's hidden state at its own position: (B, T, D), (B,) → (B, D)."""
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), index]


@torch.no_grad()
def last_token_states(
    chat_model: ChatModel,
    prompts: Sequence[str],
    layers: Sequence[int],
    *,
    batch_size: int = 64,
    after_final_norm: bool = False,
) -> Tensor:
    """The hidden states of each prompt's last token.

    Returns:
        (N, len(layers), D), float32, on the CPU, in the order of `layers`.
    """
    numbers = [resolve_layer(layer, chat_model.num_layers) for layer in layers]
    # Longest first, so that a batch holds prompts of like lengths and little padding.
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    rows: list[Tensor] = [torch.empty(0)] * len(prompts)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = chat_model.renderer.encode([prompts[i] for i in chosen]).to(chat_model.device)
        with capture_hidden_states(
            chat_model.model, numbers, after_final_norm=after_final_norm
        ) as states:
            chat_model.model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                use_cache=False,
                logits_to_keep=1,
            )
        stacked = torch.stack(
            [at_position(states[layer], batch.last_prompt_index) for layer in numbers], dim=1
        )
        for i, row in zip(chosen, stacked.float().cpu(), strict=True):
            rows[i] = row
    return torch.stack(rows)
