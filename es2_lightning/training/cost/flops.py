"""FLOPs of a callable, counted operator by operator: on meta tensors, a CPU or a GPU alike.

What counts is what `torch.utils.flop_counter` counts: matrix products and attention, two FLOPs for
each multiplication with its addition. Everything else (norms, activations, softmax) is left out.

Attention is counted as full rectangles, queries x keys, whatever its mask leaves of them: 2 matrix
products forward and 4 backward. That a fused kernel computes its scores again in the backward pass
is its own affair and is not counted, so that all kernels are counted alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry
from torch.utils.module_tracker import ModuleTracker

from es2_lightning.training.cost.on_meta import meta_as_cpu

aten = torch.ops.aten


@dataclass(frozen=True)
class FlopCount:
    """FLOPs, each in exactly one of the three parts.

    Attributes:
        forward: What runs outside of a backward pass, without the head.
        backward: What runs in a backward pass, without the head; with it what activation
            checkpointing computes again there.
        head: Matrix products with the vocabulary, or a slice of it, as one of their dimensions,
            forward and backward.
    """

    forward: int = 0
    backward: int = 0
    head: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.forward + self.backward + self.head

    def __add__(self, other: FlopCount) -> FlopCount:
        return FlopCount(
            self.forward + other.forward, self.backward + other.backward, self.head + other.head
        )


def count_flops(function: Callable[[], Any], *, vocab_size: int | None = None) -> FlopCount:
    """Call the function once and count.

    Args:
        function: With its backward pass inside, if that is to be counted.
        vocab_size: V. A matrix product that has V among its operands' sizes or strides is the
            head's, so V should differ from widths, numbers of positions and their products. None:
            nothing is told apart as the head's.
    """
    counted: Counter[str] = Counter()

    def told_apart(formula: Callable[..., int]) -> Callable[..., int]:
        def count(*args: Any, out_val: Any = None, **kwargs: Any) -> int:
            flops = formula(*args, out_val=out_val, **kwargs)
            tensors = [x for x in tree_leaves((args, out_val)) if isinstance(x, Tensor)]
            # A slice of the vocabulary has V among its strides.
            sizes = {n for x in tensors for n in (*x.shape, *x.stride())}
            if vocab_size in sizes:
                counted["head"] += flops
            else:
                counted["backward" if tracker.is_bw else "forward"] += flops
            return flops

        # Tensors, not their shapes: some of torch's own formulas need them.
        count._get_raw = True  # type: ignore[attr-defined]
        return count

    tracker = ModuleTracker()
    formulas = {op: told_apart(formula) for op, formula in (flop_registry | _ATTENTION).items()}
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    with meta_as_cpu(), counter:
        function()
    return FlopCount(**counted)


def _attention_forward(query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> int:
    return 2 * _one_product(query, key)


def _attention_backward(grad: Tensor, query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> int:
    return 4 * _one_product(query, key)


def _one_product(query: Tensor, key: Tensor) -> int:
    """(B, heads, queries, width) and (B, key heads, keys, width); values as wide as keys."""
    return 2 * prod(query.shape) * key.shape[-2]


_ATTENTION: dict[Any, Callable[..., int]] = {
    # A CPU's kernel, which torch's counter does not know, and GPUs' kernels.
    aten._scaled_dot_product_flash_attention_for_cpu: _attention_forward,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    aten._scaled_dot_product_flash_attention: _attention_forward,
    aten._scaled_dot_product_flash_attention_backward: _attention_backward,
    aten._scaled_dot_product_efficient_attention: _attention_forward,
    aten._scaled_dot_product_efficient_attention_backward: _attention_backward,
    aten._scaled_dot_product_cudnn_attention: _attention_forward,
    aten._scaled_dot_product_cudnn_attention_backward: _attention_backward,
}
