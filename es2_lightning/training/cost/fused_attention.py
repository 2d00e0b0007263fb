"""Attention without memory is the kernel that attention on a CPU is.

Meta tensors have no attention kernel of their own: `scaled_dot_product_attention` falls apart into
matrix products there, and keeps the probabilities of all pairs, which no fused kernel does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

aten = torch.ops.aten


@contextmanager
def fused_attention_on_meta() -> Iterator[None]:
    """Inside the `with`, attention on meta tensors runs the CPU's fused kernel, without its values.

    Operators, saved tensors and bytes are then those of a CPU, and in kind those of a GPU. What
    the kernel refuses on a CPU (dropout inside attention, keys and values of different widths) is
    left as it is on a CPU, too: matrix products.
    """
    # Where autograd takes an operator apart: above it stands no mode that a backward pass, which
    # computes checkpointed blocks again, would have to be told of.
    library = torch.library.Library("aten", "IMPL", "AutogradMeta")
    library.impl("scaled_dot_product_attention", _attend)
    try:
        yield
    finally:
        del library  # Takes the implementation back.


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    fused = (
        dropout_p == 0
        and query.dim() == key.dim() == value.dim() == 4
        and query.shape[-1] == key.shape[-1] == value.shape[-1]
        and not (attn_mask is not None and attn_mask.requires_grad)
    )
    output: Tensor
    if not fused:
        output, _ = aten._scaled_dot_product_attention_math(
            *(query, key, value, attn_mask, dropout_p, is_causal, None),
            scale=scale,
            enable_gqa=enable_gqa,
        )
        return output
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        # As torch itself does before it calls the kernel.
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(
            attn_mask.logical_not(), float("-inf")
        )
    output, _ = aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
    )
    return output
