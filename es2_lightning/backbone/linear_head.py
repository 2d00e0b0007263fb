"""The head of a causal LM as plain tensors: what makes logits of the final norm's output.

Shape legend: P positions, V vocabulary, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LinearHead:
    """A linear map, then soft-capping, then scaling.

    Attributes:
        weight_VD: Of the map.
        bias_V: None where there is none.
        soft_cap: Gemma's: cap · tanh(z / cap); None: none.
        scale: What the result is multiplied with (Cohere; Granite's divisor is its inverse).
    """

    weight_VD: Tensor
    bias_V: Tensor | None = None
    soft_cap: float | None = None
    scale: float = 1.0

    @property
    def trains(self) -> bool:
        """Whether a gradient for the map itself is wanted."""
        bias = self.bias_V is not None and self.bias_V.requires_grad
        return self.weight_VD.requires_grad or bias

    def logits(self, hidden_PD: Tensor) -> Tensor:
        """(P, V), in the dtype of the hidden states."""
        weight = self.weight_VD.to(hidden_PD.dtype)
        bias = None if self.bias_V is None else self.bias_V.to(hidden_PD.dtype)
        logits = torch.nn.functional.linear(hidden_PD, weight, bias)
        if self.soft_cap is not None:
            logits = torch.tanh(logits / self.soft_cap) * self.soft_cap
        return logits if self.scale == 1.0 else logits * self.scale
