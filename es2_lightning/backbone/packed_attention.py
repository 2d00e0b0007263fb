"""Attention over packed rows, plugged in through transformers' own registry.

The model's own attention function does the work, on rows that were gathered onto grids, or under a
mask of blocks: no modelling code is copied, and soft-capping, sinks and the like stay the model's.

Shape legend: N packed tokens, R rows of a grid, T its longest, P shared prefix, H heads, D width.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from es2_lightning.backbone.layouts import Layout
from es2_lightning.backbone.packed_layout import PackedLayout
from es2_lightning.backbone.structure import causal_lm_of, find_structure

NAME = "es2_packed"
"""Under which transformers finds it. It has no mask function there, so no mask is made for it."""
UNTOLD = -1
"""A sliding window that the model names to its mask alone, which packed attention never sees."""


@dataclass(frozen=True)
class Pass:
    """A forward pass that runs now.

    Attributes:
        model: The model that it runs through.
        layout: What passes.
        dropped_after: Rows without outputs end at this layer.
        attention: The name of the model's own attention function.
    """

    model: nn.Module
    layout: Layout
    dropped_after: int
    attention: str


_RUNNING: ContextVar[Pass | None] = ContextVar("running_pass", default=None)


@contextmanager
def running(model: nn.Module, layout: Layout, *, dropped_after: int) -> Iterator[None]:
    """The model's blocks and attention know the layout inside the `with`."""
    config = causal_lm_of(model).config
    with _active(Pass(model, layout, dropped_after, config._attn_implementation)):
        yield


@contextmanager
def _active(this: Pass) -> Iterator[None]:
    config = causal_lm_of(this.model).config
    handles = []
    before = _RUNNING.get()
    _RUNNING.set(this)
    try:
        if this.layout.packed is not None:
            config._attn_implementation = NAME
        if this.layout.kept is not None:
            blocks = list(find_structure(this.model).blocks)
            handles = [
                block.register_forward_pre_hook(_drop_rows, with_kwargs=True)
                for block in blocks[this.dropped_after :]
            ]
            handles.append(blocks[-1].register_forward_hook(_restore_rows))
        yield
    finally:
        for handle in handles:
            handle.remove()
        if this.layout.packed is not None:
            config._attn_implementation = this.attention
        _RUNNING.set(before)


def recomputing() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """For activation checkpointing's `context_fn`: the recomputed block sees the same layout.

    A backward pass recomputes when the forward pass is over, and on a GPU in another thread.
    """
    this = _RUNNING.get()
    return nullcontext(), nullcontext() if this is None else _active(this)


def _drop_rows(_block: nn.Module, args: Any, kwargs: Any) -> Any:
    """Only what goes on enters a block above the deepest layer that is read."""
    kept, dim, size = _dropping()

    def select(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value)(select(v) for v in value)
        if isinstance(value, dict):
            return {k: select(v) for k, v in value.items()}
        if isinstance(value, Tensor) and value.dim() > 1 and value.shape[dim] == size:
            return value.index_select(dim, kept)
        return value

    return select(args), select(kwargs)


def _restore_rows(_block: nn.Module, _args: Any, output: Any) -> Any:
    """Zeros for what did not come so far: some models expect the shape that they were given."""
    kept, dim, size = _dropping()
    hidden = output[0] if isinstance(output, tuple) else output
    shape = list(hidden.shape)
    shape[dim] = size
    whole = hidden.new_zeros(shape).index_copy(dim, kept, hidden)
    return (whole, *output[1:]) if isinstance(output, tuple) else whole


def _dropping() -> tuple[Tensor, int, int]:
    """What is kept of the pass that runs, along which dimension, and how long that was."""
    this = _RUNNING.get()
    assert this is not None and this.layout.kept is not None
    dim = 0 if this.layout.attention_mask is not None else 1
    return this.layout.kept, dim, this.layout.input_ids.shape[dim]


@torch.compiler.disable
def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    sliding_window: int | None = UNTOLD,
    **others: Any,
) -> tuple[Tensor, None]:
    """Each token attends to those before it in its own row, and to the shared prefix.

    Args:
        module: The attention module of a block.
        query: (1, H, N, D).
        key: (1, its heads, N, D).
        value: As `key`.
        attention_mask: None: the layout that runs now says who sees whom.
        sliding_window: A token sees so many, itself included; None: all before it. Left out by
            models that have no windows.
        **others: What the model hands to its own attention function.

    Returns:
        (1, N, H, D), and None where attention weights could stand.

    Raises:
        ValueError: The model's configuration has windows, and it does not say of which layer.
    """
    this = _RUNNING.get()
    assert this is not None and attention_mask is None
    layout = this.layout.packed
    if layout is None or layout.num_tokens != query.shape[2]:
        layout = this.layout.packed_above
    assert layout is not None and layout.num_tokens == query.shape[2]
    if sliding_window == UNTOLD:
        if has_windows(this.model):
            raise ValueError("its attention is not told the sliding window of its configuration")
        sliding_window = None
    if sliding_window is not None:
        others["sliding_window"] = sliding_window
    attend = _Attend(module, this.attention, others)
    if layout.masked:
        return attend(query, key, value, layout.block_mask(sliding_window)), None
    return _on_grids(attend, layout, query, key, value, sliding_window), None


AttentionInterface.register(NAME, packed_attention)


def has_windows(model: nn.Module) -> bool:
    """Whether a model's configuration has a sliding window that its prompts can reach beyond."""
    config = causal_lm_of(model).config.get_text_config(decoder=True)
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    return (
        window is not None
        and getattr(config, "use_sliding_window", True)
        and (kinds is None or "sliding_attention" in kinds)
        and window < (getattr(config, "max_position_embeddings", None) or window + 1)
    )


def _on_grids(
    attend: _Attend,
    layout: PackedLayout,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window: int | None,
) -> Tensor:
    prefix = layout.prefix
    outputs = []
    if prefix:
        # Of its own storage: a slice that is saved for the backward pass keeps all N tokens alive.
        parts = [x[:, :, :prefix].contiguous() for x in (query, key, value)]
        mask = layout.prefix_mask(window) if _cuts(window, prefix) else None
        outputs.append(attend(parts[0], parts[1], parts[2], mask)[0])
    for grid in layout.grids:
        q, k, v = (_gathered(x, grid.index, grid.rows, grid.length) for x in (query, key, value))
        if prefix:
            k, v = (
                torch.cat([x[:, :, :prefix].expand(grid.rows, -1, -1, -1), own], dim=2)
                for x, own in ((key, k), (value, v))
            )
        masked = prefix or _cuts(window, grid.length)
        mask = layout.grid_mask(grid.length, window) if masked else None
        outputs.append(attend(q, k, v, mask).flatten(0, 1))
    flat = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return flat.index_select(0, layout.restore)[None]


def _gathered(x: Tensor, index: Tensor, rows: int, length: int) -> Tensor:
    """(1, H, N, D) → (R, H, T, D)."""
    heads, width = x.shape[1], x.shape[3]
    return x[0].index_select(1, index).view(heads, rows, length, width).transpose(0, 1)


def _cuts(window: int | None, length: int) -> bool:
    return window is not None and length > window


class _Attend:
    """The model's own attention function, causal where there is no mask."""

    def __init__(self, module: nn.Module, name: str, others: dict[str, Any]) -> None:
        # A model's eager function stands in the file of its attention module.
        eager: Callable[..., Any] | None = getattr(
            sys.modules[type(module).__module__], "eager_attention_forward", None
        )
        self._function: Any = eager if name == "eager" else AttentionInterface().get(name, eager)
        assert self._function is not None, f"no attention function {name}"
        self._eager = name == "eager"
        self._module = module
        self._others = others

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """(R, H, T, D) → (R, T, H, D). `mask` is bool; None: causal."""
        others = self._others
        if mask is None and self._eager:
            length = query.shape[2]
            mask = query.new_ones(length, length, dtype=torch.bool).tril()[None, None]
        if mask is None:
            others = {**others, "is_causal": True}
        elif self._eager:
            lowest = torch.finfo(query.dtype).min
            mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, lowest)
        output: Tensor = self._function(self._module, query, key, value, mask, **others)[0]
        return output
