"""Cross-entropy of given next tokens: what supervised fine-tuning minimises.

Shape legend: E outputs, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def next_token_losses(
    hidden_ED: Tensor,
    targets_E: Tensor,
    logits: Callable[[Tensor], Tensor],
    *,
    chunk: int | None,
) -> Tensor:
    """-log P(target) of each output, (E,), in nats, in float32 or better.

    Args:
        hidden_ED: What left the final norm.
        targets_E: The tokens that follow.
        logits: The head, (…, D) → (…, V).
        chunk: Outputs that pass through the head at a time, again in the backward pass, so that
            (E, V) is never held; None: all at once.
    """

    def losses(hidden: Tensor, targets: Tensor) -> Tensor:
        found = logits(hidden)
        found = found if found.dtype == torch.float64 else found.float()
        return F.cross_entropy(found, targets, reduction="none")

    if chunk is None or len(hidden_ED) <= chunk:
        return losses(hidden_ED, targets_E)
    return torch.cat(
        [
            checkpoint(losses, hidden, targets, use_reentrant=False)
            for hidden, targets in zip(hidden_ED.split(chunk), targets_E.split(chunk), strict=True)
        ]
    )
