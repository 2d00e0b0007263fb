"""What trains, assembled from its shards."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """The trainable parameters by name, on the host; collective."""
    found: dict[str, Any] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            value = parameter.detach()
            whole = value.full_tensor() if isinstance(value, DTensor) else value
            found[name] = whole.cpu()
    return found
