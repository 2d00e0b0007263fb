"""What is missing without memory: attention is a CPU's kernel there, and questions have an answer.

Meta tensors have no attention kernel of their own: `scaled_dot_product_attention` falls apart into
matrix products there, and keeps the probabilities of all pairs, which no fused kernel does. And
they have no values, which transformers asks for to find out whether a mask is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


@contextmanager
def meta_as_cpu() -> Iterator[None]:
    """Inside the `with`, meta tensors go through the operators that a CPU's would.

    Attention is the CPU's fused kernel, without its values: operators, saved tensors and bytes are
    then a CPU's, and in kind a GPU's. What the kernel refuses on a CPU (dropout inside attention,
    keys and values of different widths) is left as it is on a CPU, too: matrix products.

    A value that is asked for is 0, or False: a mask does not hide nothing.
    """
    # Attention where autograd takes an operator apart: above it stands no mode that a backward
    # pass, which computes checkpointed blocks again, would have to be told of.
    attention = torch.library.Library("aten", "IMPL", "AutogradMeta")
    attention.impl("scaled_dot_product_attention", _attend)
    values = torch.library.Library("aten", "IMPL", "Meta")
    values.impl("_local_scalar_dense", _zero)
    try:
        yield
    finally:
        del attention, values  # Takes the implementations back.


def _zero(tensor: Tensor) -> Any:
    return torch.zeros((), dtype=tensor.dtype).item()


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
