"""The configurations that SCAV's worst case is taken over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

from es2_lightning.errors import UserError
from es2_lightning.evaluation.attacks.scav_probes import ScavProbes
from es2_lightning.evaluation.attacks.scav_shift import Positions, ScavSetting


def _best_layer(layers: tuple[int, ...], accuracies: Sequence[float]) -> tuple[int, ...]:
    return layers and (max(layers, key=lambda layer: (accuracies[layer - 1], -layer)),)


SUBSETS: dict[str, Callable[[tuple[int, ...], Sequence[float]], tuple[int, ...]]] = {
    "all": lambda layers, _: layers,
    "first_half": lambda layers, _: layers[: (len(layers) + 1) // 2],
    "second_half": lambda layers, _: layers[len(layers) // 2 :],
    "best": _best_layer,
}
"""Of the layers above P1: all; the shallower half; the deeper half (a middle layer is in both);
the one with the highest held-out probe accuracy, the shallowest of equals."""

FEATURES = {"scale_free": True, "raw": False}


class ScavGrid:
    """Positions x P0 x layer subsets x features.

    Args:
        positions: Where states are shifted.
        p0: The probabilities that they are brought down to.
        subsets: Which of the layers above P1, by the names in `SUBSETS`.
        features: `scale_free`, `raw`.
        p1: Only layers whose held-out probe accuracy exceeds it are shifted.

    Raises:
        UserError: An unknown name, a value out of range, or an empty axis.
    """

    def __init__(
        self,
        *,
        positions: Sequence[Positions] = ("every_token", "last_prompt_token"),
        p0: Sequence[float] = (1e-2, 1e-3, 1e-4, 1e-6, 1e-9),
        subsets: Sequence[str] = ("all", "first_half", "second_half", "best"),
        features: Sequence[str] = ("scale_free", "raw"),
        p1: float = 0.90,
    ) -> None:
        axes: dict[str, tuple[Sequence[str], list[str]]] = {
            "positions": (positions, ["every_token", "last_prompt_token"]),
            "subsets": (subsets, list(SUBSETS)),
            "features": (features, list(FEATURES)),
        }
        for name, (chosen, accepted) in axes.items():
            if not chosen or not set(chosen) <= set(accepted):
                raise UserError(
                    f"grid.{name}={list(chosen)}: accepted is a list of {', '.join(accepted)}"
                )
        if not p0 or not all(0 < p < 1 for p in (*p0, p1)):
            raise UserError(
                f"grid.p0={list(p0)}, grid.p1={p1}: accepted are probabilities between 0 and 1"
            )
        self.positions = tuple(positions)
        self.p0 = tuple(sorted(p0, reverse=True))
        self.subsets = tuple(subsets)
        self.features = tuple(features)
        self.p1 = p1

    def settings(self, probes: ScavProbes) -> list[ScavSetting]:
        """The different configurations on a fitted model; none where no layer is above P1."""
        found: dict[ScavSetting, None] = {}
        for features, subset, positions, p0 in product(
            self.features, self.subsets, self.positions, self.p0
        ):
            scale_free = FEATURES[features]
            above = probes.layers_above(self.p1, scale_free=scale_free)
            layers = SUBSETS[subset](above, probes.accuracy(scale_free=scale_free))
            if layers:
                found[ScavSetting(positions, p0, scale_free, layers)] = None
        return list(found)
