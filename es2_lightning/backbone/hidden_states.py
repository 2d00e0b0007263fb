"""Reading hidden states by layer number, through hooks that live only inside a `with`.

Shape legend: B rows, T positions, D width, N prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from es2_lightning.backbone.chat import Asked, words_of
from es2_lightning.backbone.layer_numbers import resolve_layer
from es2_lightning.backbone.structure import DecoderStructure, find_structure
from es2_lightning.backbone.truncated import truncated

if TYPE_CHECKING:
    from es2_lightning.backbone.chat_model import ChatModel


@contextmanager
def capture_hidden_states(
    model: nn.Module, layers: Sequence[int], *, after_final_norm: bool = False
) -> Iterator[dict[int, Tensor]]:
    """Capture the outputs of the given layers during the forward passes inside the `with`.

    Layer L is read before the final norm, unlike transformers' `hidden_states[L]`, unless
    `after_final_norm` is set. Activation checkpointing runs blocks a second time in the backward
    pass: the first firing is the one kept. It must be non-re-entrant (`use_reentrant=False`), or
    what is captured carries no gradient.

    Yields:
        A dict from layer number (0 … L) to a (B, T, D) tensor, filled by the forward pass.
    """
    structure = find_structure(model)
    depth = len(structure.blocks)
    states: dict[int, Tensor] = {}
    handles = []

    def store(layer: int) -> Callable[[Tensor], None]:
        def keep_the_first(state: Tensor) -> None:
            states.setdefault(layer, state)

        return keep_the_first

    try:
        for layer in {resolve_layer(layer, depth) for layer in layers}:
            handles.append(
                hook_layer(structure, layer, store(layer), after_final_norm=after_final_norm)
            )
        yield states
    finally:
        for handle in handles:
            handle.remove()


def hook_layer(
    structure: DecoderStructure,
    layer: int,
    function: Callable[[Tensor], Tensor | None],
    *,
    after_final_norm: bool = False,
) -> RemovableHandle:
    """Call a function with a layer's hidden state in every forward pass, until it is removed.

    Args:
        structure: The model's parts.
        layer: 0 … L. 0 is what enters block 1, since some models add positions to the embeddings,
            or scale them, before that.
        function: From (B, T, D) to what stands in its place, or to None, which leaves it.
        after_final_norm: Whether layer L is what leaves the final norm, rather than block L.
    """
    if layer == 0:

        def before(_module: nn.Module, args: Any, kwargs: Any) -> Any:
            # transformers' models hand it over by position, or, a few, by this name.
            if args:
                new = function(args[0])
                return None if new is None else ((new, *args[1:]), kwargs)
            new = function(kwargs["hidden_states"])
            return None if new is None else (args, {**kwargs, "hidden_states": new})

        return structure.blocks[0].register_forward_pre_hook(before, with_kwargs=True)

    def after(_module: nn.Module, _args: Any, output: Any) -> Any:
        if not isinstance(output, tuple):
            return function(output)
        new = function(output[0])
        return None if new is None else (new, *output[1:])

    terminal = layer == len(structure.blocks) and after_final_norm
    module = structure.final_norm if terminal else structure.blocks[layer - 1]
    return module.register_forward_hook(after)


def hidden_states_up_to(
    model: nn.Module, layers: Sequence[int], *, input_ids: Tensor, attention_mask: Tensor
) -> dict[int, Tensor]:
    """The hidden states of some layers, with nothing computed above the deepest of them.

    Returns:
        Layer number (0 … L) to (B, T, D); layer L before the final norm.
    """
    depth = len(find_structure(model).blocks)
    numbers = [resolve_layer(layer, depth) for layer in layers]
    with (
        capture_hidden_states(model, numbers) as states,
        truncated(model, max([1, *numbers])),
    ):
        model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, logits_to_keep=1)
    return states


def at_position(hidden: Tensor, index: Tensor) -> Tensor:
    """Each row's hidden state at its own position: (B, T, D), (B,) → (B, D)."""
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), index]


@torch.no_grad()
def last_token_states(
    chat_model: ChatModel,
    prompts: Sequence[Asked],
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
    order = sorted(range(len(prompts)), key=lambda i: -len(words_of(prompts[i])))
    rows: list[Tensor] = [torch.empty(0)] * len(prompts)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = chat_model.renderer.encode([prompts[i] for i in chosen]).to(chat_model.device)
        with (
            capture_hidden_states(
                chat_model.model, numbers, after_final_norm=after_final_norm
            ) as states,
            truncated(chat_model.model, max([1, *numbers])),
        ):
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
