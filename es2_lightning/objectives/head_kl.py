"""KL(base ‖ tuned) from final hidden states: never more logits than of a chunk of positions.

A frozen head needs no gradient of its own, so that the gradient for the hidden states is computed
beside the value, chunk by chunk, and nothing of the vocabulary's size is kept for the backward
pass. All of it in float32, whatever the dtype of states and head, or in float64 for float64 states.

Where both models share a linear head, the difference of their scores is the product of the head
with the *difference* of their hidden states, so that no digits are lost where the two distributions
are close, as they are in training; at equality value and gradient are exactly 0.

Shape legend: P positions, V vocabulary, D width, C positions of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from es2_lightning.backbone.head_products import (
    chunks,
    combined,
    multiplies_bf16,
    scores,
    wide_dtype,
    without_autocast,
)
from es2_lightning.backbone.head_statistics import (
    HeadStatistics,
    add_bias_and_scale,
    finest_dtype,
    needs_statistics_head,
    softmax_,
)
from es2_lightning.backbone.linear_head import LinearHead
from es2_lightning.objectives.close_distributions import kl_and_gradient_
from es2_lightning.objectives.kl import kl_at_positions


def kl_of_states(
    tuned_PD: Tensor,
    base_PD: Tensor,
    *,
    tuned_head: LinearHead,
    base_head: LinearHead | None = None,
    chunk: int | None,
    compiled: bool = False,
) -> Tensor:
    """KL(base ‖ tuned) of each position, (P,), in nats, float32 (float64 for float64 states).

    Products with the head: two a position, and a third for the gradient of a frozen head.

    Args:
        tuned_PD: What left the tuned model's final norm; gradients go here, and to a head that
            trains.
        base_PD: What left the base's; taken as a constant.
        tuned_head: The tuned model's head.
        base_head: The base's, taken as a constant; None: the same.
        chunk: Positions whose logits exist at a time; None: of all, differentiated by autograd.
        compiled: For a frozen head: what is done with a chunk's scores goes through torch.compile,
            which takes a quarter of the time and, once a process, some seconds to compile.
    """
    same = base_head is None or _is_same(base_head, tuned_head)
    base_head = tuned_head if base_head is None else base_head
    if chunk is None or (tuned_head.trains and torch.is_grad_enabled()):
        return kl_of_logit_functions(
            tuned_PD,
            base_PD,
            tuned_logits=partial(_wide_logits, tuned_head),
            base_logits=partial(_wide_logits, base_head),
            chunk=chunk,
        )
    assert (base_head.soft_cap, base_head.scale) == (tuned_head.soft_cap, tuned_head.scale)

    def part(rows: slice, gradient: bool) -> tuple[Tensor, Tensor | None]:
        tuned_CD = tuned_PD[rows]
        base_CV, change_CV = _scores(tuned_CD, base_PD[rows], tuned_head, base_head, same=same)
        kl_C = kl_and_gradient_(
            base_CV,
            change_CV,
            soft_cap=tuned_head.soft_cap,
            scale=tuned_head.scale,
            compiled=compiled,
        )
        if not gradient:
            return kl_C, None
        weight = tuned_head.weight_VD
        # The gradient is handed back in bf16, with the very error that one term leaves.
        terms = 1 if multiplies_bf16(tuned_CD, weight) else None
        return kl_C, combined(change_CV, weight, bf16_terms=terms).mul_(tuned_head.scale)

    return _over_chunks(tuned_PD, part, chunk)


def kl_of_logit_functions(
    tuned_PD: Tensor,
    base_PD: Tensor,
    *,
    tuned_logits: Callable[[Tensor], Tensor],
    base_logits: Callable[[Tensor], Tensor],
    chunk: int | None,
) -> Tensor:
    """The same for heads of any kind, such as one that trains or has an adapter.

    Logits come in the dtype that the functions compute in, which for a head in bf16 is too coarse
    for a small KL. The tuned model's are computed once more in the backward pass.

    Args:
        tuned_PD: What left the tuned model's final norm.
        base_PD: What left the base's; taken as a constant.
        tuned_logits: (C, D) → (C, V); gradients reach its weights too.
        base_logits: The base's, taken as a constant.
        chunk: Positions whose logits exist at a time; None: of all, and nothing is recomputed.
    """

    def part(tuned_CD: Tensor, base_CD: Tensor) -> Tensor:
        with torch.no_grad():
            base_CV = base_logits(base_CD)
        return kl_at_positions(base_CV, tuned_logits(tuned_CD))

    if chunk is None or not torch.is_grad_enabled():
        run = part
    else:
        run = partial(checkpoint, part, use_reentrant=False)
    # No position is a chunk as well, since the result must hang on the states.
    slices = chunks(len(tuned_PD), chunk) or [slice(0, 0)]
    return torch.cat([run(tuned_PD[rows], base_PD[rows]) for rows in slices])


def kl_of_statistics(
    tuned_PD: Tensor, statistics: HeadStatistics, head: LinearHead, *, chunk: int | None
) -> Tensor:
    """KL(base ‖ tuned) of each position, (P,), from the base's statistics under the same head.

    One product with the head a position, and a second for the gradient. The value is a small
    difference of large terms, whose rounding of about 1e-6 makes it negative at times; it is not
    clamped, since a clamped value would have another gradient.

    Args:
        tuned_PD: What left the tuned model's final norm.
        statistics: Of the base at the same positions.
        head: Frozen, without soft-capping; the one that the statistics were made with.
        chunk: Positions at a time; None: all at once.

    Raises:
        UserError: The head is soft-capped or trains.
    """
    needs_statistics_head(head)

    def part(rows: slice, gradient: bool) -> tuple[Tensor, Tensor | None]:
        q = scores(tuned_PD[rows], head.weight_VD)
        add_bias_and_scale(q, head)
        expected_CD = statistics.expected_weight_PD[rows]
        fine = finest_dtype(q)
        kl_C = statistics.negative_entropy_P[rows].to(fine) + softmax_(q)
        kl_C -= (expected_CD.to(fine) * tuned_PD[rows].to(fine)).sum(-1)
        if not gradient:
            return kl_C, None
        terms = 2 if multiplies_bf16(tuned_PD, head.weight_VD) else None
        weights_CD = combined(q, head.weight_VD, bf16_terms=terms).mul_(head.scale)
        return kl_C, weights_CD.sub_(expected_CD)

    return _over_chunks(tuned_PD, part, chunk)


def _over_chunks(
    states_PD: Tensor,
    part: Callable[[slice, bool], tuple[Tensor, Tensor | None]],
    chunk: int | None,
) -> Tensor:
    """The values of all positions, (P,), tied to the states by gradients computed beside them.

    Args:
        states_PD: What is differentiated for.
        part: Of some positions the values, and, where it is asked for, their gradients, (C, D).
        chunk: How many positions `part` is given at a time.
    """
    dtype = wide_dtype(states_PD)
    gradient = torch.is_grad_enabled() and states_PD.requires_grad
    kl_P = states_PD.new_empty(len(states_PD), dtype=dtype)
    gradient_PD = states_PD.new_empty(states_PD.shape, dtype=dtype) if gradient else None
    with torch.no_grad(), without_autocast(states_PD):
        for rows in chunks(len(states_PD), chunk):
            kl_P[rows], found = part(rows, gradient)
            if gradient_PD is not None and found is not None:
                gradient_PD[rows] = found
    if gradient_PD is None:
        return kl_P
    tied_P: Tensor = _KnownGradient.apply(states_PD, kl_P, gradient_PD)
    return tied_P


class _KnownGradient(torch.autograd.Function):
    """Values of positions whose gradients for the hidden states are known already."""

    @staticmethod
    def forward(ctx: Any, states_PD: Tensor, kl_P: Tensor, gradient_PD: Tensor) -> Tensor:
        ctx.save_for_backward(gradient_PD)
        ctx.dtype = states_PD.dtype
        return kl_P.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream_P: Tensor) -> tuple[Tensor, None, None]:
        (gradient_PD,) = ctx.saved_tensors
        return (upstream_P[:, None] * gradient_PD).to(ctx.dtype), None, None


def _scores(
    tuned_CD: Tensor, base_CD: Tensor, tuned_head: LinearHead, base_head: LinearHead, *, same: bool
) -> tuple[Tensor, Tensor]:
    """The base's scores before soft-capping and scale, and what the tuned model's add, (C, V)."""
    dtype, weight = wide_dtype(tuned_CD), tuned_head.weight_VD
    if base_CD.dtype != tuned_CD.dtype:
        tuned_CD, base_CD = tuned_CD.to(dtype), base_CD.to(dtype)
    if same and not multiplies_bf16(tuned_CD, weight):
        base_CD = base_CD.to(dtype)
        both = torch.cat([base_CD, tuned_CD.to(dtype) - base_CD])
        base_CV, change_CV = scores(both, weight).chunk(2)
    elif same:
        # The difference of two bf16 states is no bf16 state.
        base_CV, change_CV = scores(torch.cat([base_CD, tuned_CD]), weight).chunk(2)
        change_CV -= base_CV
    else:
        base_CV = scores(base_CD, base_head.weight_VD)
        change_CV = scores(tuned_CD, weight).sub_(base_CV)
        change_CV += _bias(tuned_head, dtype) - _bias(base_head, dtype)
    base_CV += _bias(base_head, dtype)
    return base_CV, change_CV


def _bias(head: LinearHead, dtype: torch.dtype) -> Tensor | float:
    return 0.0 if head.bias_V is None else head.bias_V.to(dtype)


def _is_same(one: LinearHead, other: LinearHead) -> bool:
    return (
        one.weight_VD is other.weight_VD
        and one.bias_V is other.bias_V
        and (one.soft_cap, one.scale) == (other.soft_cap, other.scale)
    )


def _wide_logits(head: LinearHead, states: Tensor) -> Tensor:
    with without_autocast(states):
        return head.logits(states.to(wide_dtype(states)))
