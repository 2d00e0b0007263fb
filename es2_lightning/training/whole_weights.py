"""What trains, assembled from its shards."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

PREFIX = "model."
"""The objective holds the model under this name."""


def whole_weights(objective: nn.Module) -> dict[str, Tensor]:
    """The trainable parameters by their names in the model, on the host; collective."""
    found: dict[str, Any] = {}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            value = parameter.detach()
            whole = value.full_tensor() if isinstance(value, DTensor) else value
            found[name.removeprefix(PREFIX)] = whole.cpu()
    return found
