"""KL of two distributions from the scores of one and what the other adds to them.

With p the softmax of z and q that of z + c, log q / p is r = c − log Σ p e^c. The value is
Σ p (e^r − 1 − r) and its gradient for z + c is q − p = p (e^r − 1): every term vanishes with r. The
textbook's Σ p (log p − log q) instead leaves the rounding of the logarithms, 1e-6, and
softmax − softmax that of the probabilities.

Shape legend: C positions of a chunk, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from es2_lightning.backbone.head_products import row_blocks

SMALL = {torch.float32: 0.2, torch.float64: 0.005}
"""|r| below which e^r − 1 − r is taken as (e^r − 1) · r · (1/2 − r/12 + r³/720), which leaves out
r⁵ / 15120 of it."""


def kl_and_gradient_(
    base_CV: Tensor,
    change_CV: Tensor,
    *,
    soft_cap: float | None,
    scale: float,
    compiled: bool = False,
) -> Tensor:
    """KL of the distributions with scores `base` and `base + change`, (C,), in nats.

    Nothing of their size is allocated.

    Args:
        base_CV: float32 or float64; overwritten.
        change_CV: Overwritten with d KL / d (base + change), divided by the scale.
        soft_cap: Logits are scale · soft_cap · tanh(scores / soft_cap); None: scale · scores.
        scale: Of the logits.
        compiled: Through torch.compile.
    """
    block = _compiled_block() if compiled and not base_CV.is_meta else _block
    kl_C = base_CV.new_empty(len(base_CV))
    for rows in row_blocks(base_CV):
        kl_C[rows] = block(base_CV[rows], change_CV[rows], soft_cap, scale)
    return kl_C


def _block(base: Tensor, change: Tensor, soft_cap: float | None, scale: float) -> Tensor:
    slope = None if soft_cap is None else _soft_cap(base, change, soft_cap)
    if scale != 1.0:
        base *= scale
        change *= scale
    q = base + change
    top, top_q = base.amax(-1, keepdim=True), q.amax(-1, keepdim=True)
    p = base.sub_(top).exp_()
    q.sub_(top_q).exp_()
    sum_p, sum_q = p.sum(-1, keepdim=True), q.sum(-1, keepdim=True)
    p /= sum_p
    r = change.sub_(top_q - top + (sum_q / sum_p).log())
    small = r.abs() < SMALL[r.dtype]
    # Elsewhere q may be large where p is below all that float32 holds.
    gradient = torch.where(small, torch.expm1(r).mul_(p), q.div_(sum_q).sub_(p))
    series = (r * r).mul_(1 / 720).sub_(1 / 12).mul_(r).add_(1 / 2).mul_(r).mul_(gradient)
    direct = torch.addcmul(gradient, p, r, value=-1)
    kl = torch.where(small, series, direct).sum(-1)
    # The gradient sums to 0 but for the rounding of the sums, which is taken out here.
    excess = gradient.sum(-1, keepdim=True)
    gradient.addcmul_(p, excess, value=-1)
    change.copy_(gradient if slope is None else gradient * slope)
    return kl


@cache
def _compiled_block() -> Callable[[Tensor, Tensor, float | None, float], Tensor]:
    # Chunks come in many sizes. Under a dispatch mode, such as a FLOP counter, it runs as it is.
    return torch.compile(_block, dynamic=True)


def _soft_cap(base: Tensor, change: Tensor, cap: float) -> Tensor:
    """Soft-cap `base` and `base + change` in place; the latter's slope.

    tanh a − tanh b = tanh(a − b) · (1 − tanh a · tanh b) keeps the digits of a small change.
    """
    tuned = ((base + change) / cap).tanh_()
    base.div_(cap).tanh_()
    change.div_(cap).tanh_().mul_((1 - tuned * base).mul_(cap))
    base *= cap
    return 1 - tuned.square_()
