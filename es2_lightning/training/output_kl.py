"""The KL at a pass's outputs, whichever way the reference tells its distributions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from es2_lightning.backbone.head import linear_head, logits_of
from es2_lightning.backbone.head_statistics import HeadStatistics
from es2_lightning.backbone.linear_head import LinearHead
from es2_lightning.objectives.head_kl import kl_of_logit_functions, kl_of_states, kl_of_statistics

if TYPE_CHECKING:
    from es2_lightning.backbone.reference import ReferenceOutputs


def output_kl(
    model: Any,
    hidden_UD: Tensor,
    reference: ReferenceOutputs,
    *,
    chunk: int | None,
    compiled: bool = False,
) -> Tensor:
    """KL(reference ‖ model) of each of U outputs, (U,), in nats.

    Args:
        model: A causal LM, or a peft model around one; its head is what is used of it.
        hidden_UD: What left its final norm.
        reference: The reference's U outputs.
        chunk: Positions that pass through the head at a time; None: all at once.
        compiled: Whether torch.compile fuses what is not a matrix product.
    """
    head = linear_head(model)
    if isinstance(reference, HeadStatistics):
        assert head is not None, "statistics are of a frozen linear head"
        return kl_of_statistics(hidden_UD, reference, head, chunk=chunk)
    if head is not None and isinstance(reference.head, LinearHead):
        return kl_of_states(
            hidden_UD,
            reference.hidden_ED,
            tuned_head=head,
            base_head=reference.head,
            chunk=chunk,
            compiled=compiled,
        )
    base = reference.head
    return kl_of_logit_functions(
        hidden_UD,
        reference.hidden_ED,
        tuned_logits=partial(logits_of, model),
        base_logits=base.logits if isinstance(base, LinearHead) else base,
        chunk=chunk,
    )
