"""Linear probes on hidden states (SCAV, arXiv 2404.12038, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor


@dataclass(frozen=True)
class LinearProbe:
    """P(harmful | h) = sigmoid(weight · h + bias), on the hidden states themselves.

    Attributes:
        weight: (D,) float64. A scale-free probe's weight is already divided by its scale, so that
            it reads raw states too.
        bias: A scalar.
    """

    weight: Tensor
    bias: float

    def logit(self, states: Tensor) -> Tensor:
        """(…, D) → (…), in float64."""
        return states.double() @ self.weight.to(states.device) + self.bias

    def accuracy(self, harmful: Tensor, harmless: Tensor) -> float:
        """Share of states on the right side, harmful and harmless weighing the same."""
        right_harmful = (self.logit(harmful) > 0).double().mean()
        right_harmless = (self.logit(harmless) <= 0).double().mean()
        return float((right_harmful + right_harmless) / 2)


def fit_probe(harmful: Tensor, harmless: Tensor, *, scale_free: bool) -> LinearProbe:
    """Logistic regression with L2 (C = 1), as in SCAV.

    Args:
        harmful: (N, D).
        harmless: (M, D).
        scale_free: Divide the states by their root mean square before fitting, so that a model
            that merely inflates its norms gains nothing against the L2 penalty.
    """
    states = torch.cat([harmful, harmless]).double()
    labels = np.concatenate([np.ones(len(harmful)), np.zeros(len(harmless))])
    scale = float(states.square().mean().sqrt()) if scale_free else 1.0
    # SCAV uses saga; lbfgs reaches the same optimum of the same convex problem and converges on
    # unscaled features, where saga stops at its iteration limit.
    model = LogisticRegression(C=1.0, solver="lbfgs", max_iter=1000)
    model.fit((states / scale).numpy(), labels)
    return LinearProbe(
        weight=torch.from_numpy(model.coef_[0]) / scale, bias=float(model.intercept_[0])
    )
