"""What the losses of all methods share: how the rows of a batch pass through the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from es2_lightning.backbone.layouts import Layout, Packing, lay_out
from es2_lightning.backbone.packing_choice import has_dropout
from es2_lightning.backbone.token_rows import TokenRow
from es2_lightning.training.settings import StepSettings

T = TypeVar("T")


class RowObjective(nn.Module):
    """A loss of rows of tokens. All of a step happens inside its forward: FSDP shards that.

    Args:
        model: The causal LM that is trained, its adapter included.
        step: How a step is computed; no choice changes what is computed.
        packing: How passes are laid out: what `step.packing` came to for this model.
    """

    def __init__(
        self, model: Any, *, step: StepSettings | None = None, packing: Packing = "off"
    ) -> None:
        super().__init__()
        self.model = model
        self.step = step or StepSettings()
        self.packing: Packing = packing

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def layout(self, rows: Sequence[TokenRow], *, drop: bool = False) -> Layout:
        """Rows laid out for one pass, on the model's device; see `lay_out`."""
        return lay_out(rows, packing=self.packing, share_prefix=self.shares_prefix(), drop=drop).to(
            self.device
        )

    def shares_prefix(self) -> bool:
        """Whether the tokens that all rows begin with are computed once."""
        if self.packing not in ("grid", "block_mask") or self.step.shared_prefix == "never":
            return False
        drawn = self.model.training and has_dropout(self.model)
        return self.step.shared_prefix == "always" or not drawn

    def recomputed(self, run: Callable[..., T], *args: Any, recompute: bool) -> T:
        """A pass, of whose inside nothing is kept for the backward pass where it is recomputed."""
        if not (recompute and torch.is_grad_enabled()):
            return run(*args)
        found: T = checkpoint(run, *args, use_reentrant=False)
        return found
