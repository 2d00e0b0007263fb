"""Norms that keep their input alone for the backward pass, not what they made of it on the way."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from es2_lightning.backbone.structure import causal_lm_of


def make_norms_lean(model: nn.Module) -> int:
    """Let every norm of the decoder be recomputed in the backward pass: no matrix products.

    transformers' norms are written out in float32, and each step of it is kept otherwise.

    Returns:
        How many norms there are.
    """
    norms = [
        module
        for module in causal_lm_of(model).get_decoder().modules()
        if "norm" in type(module).__name__.lower() and not list(module.children())
    ]
    for norm in norms:
        norm.forward = partial(_recomputed, norm.forward)
    return len(norms)


def _recomputed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    # A norm draws no random numbers, whose state would be read and kept each time.
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
