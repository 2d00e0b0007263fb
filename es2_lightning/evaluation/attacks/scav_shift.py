"""SCAV's minimal shift (arXiv 2404.12038, section 4), with parameters of its own for every row.

Shape legend: B rows, D width, S forward passes of one generation, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, log
from typing import Literal

import torch
from torch import Tensor

from es2_lightning.evaluation.attacks.scav_probes import ScavProbes

Positions = Literal["every_token", "last_prompt_token"]


def logit(p: float) -> float:
    """log(p / (1 - p))."""
    return log(p) - log(1 - p)


def distance_to_target(
    states_BD: Tensor, weight_BD: Tensor, bias_B: Tensor, target_logit_B: Tensor
) -> Tensor:
    """How far each state must go against its probe's unit direction to reach the target logit.

    Where it is above 0 it is the length of SCAV's minimal shift; elsewhere the probe is at or below
    its target already and SCAV does nothing. Float64 in, float64 out.

    Returns:
        (B,), in the states' own unit.
    """
    logit_B = (states_BD * weight_BD).sum(-1) + bias_B
    return (logit_B - target_logit_B) / weight_BD.norm(dim=-1)


@dataclass(frozen=True)
class ScavSetting:
    """One configuration of the attack.

    Attributes:
        positions: Shift the last position of every forward pass (the prompt's last token, then
            every generated one), or the prompt's last token only.
        p0: The probability of harm that a shifted state is brought down to.
        scale_free: Whose probes: on states divided by their layer's root mean square, or raw.
        layers: The layers that are shifted, shallow first.
    """

    positions: Positions
    p0: float
    scale_free: bool
    layers: tuple[int, ...]

    def __str__(self) -> str:
        features = "scale_free" if self.scale_free else "raw"
        layers = ",".join(str(layer) for layer in self.layers)
        return f"{self.positions} p0={self.p0:g} {features} layers=[{layers}]"


class BatchShift:
    """The shifts of one batch during one generation, and a record of how long they were.

    Args:
        probes: The attacker's probes.
        settings: One for each row.
        budgets: The most that a row may be shifted at a layer, as a share of that layer's mean
            state norm; inf for no limit.
        device: Where the states are.
    """

    def __init__(
        self,
        probes: ScavProbes,
        settings: Sequence[ScavSetting],
        budgets: Sequence[float],
        device: torch.device,
    ) -> None:
        self._probes = probes
        self._layers = sorted({layer for s in settings for layer in s.layers})
        self._distance: dict[int, list[Tensor]] = {layer: [] for layer in self._layers}
        self._slope: dict[int, Tensor] = {}

        self._target = torch.tensor(
            [logit(s.p0) for s in settings], dtype=torch.float64, device=device
        )
        self._budget = torch.tensor(list(budgets), dtype=torch.float64, device=device)
        self._features = torch.tensor([int(s.scale_free) for s in settings], device=device)
        self._every_token = torch.tensor(
            [s.positions == "every_token" for s in settings], device=device
        )
        self._active = {
            layer: torch.tensor([layer in s.layers for s in settings], device=device)
            for layer in self._layers
        }

    def interventions(self) -> dict[int, Callable[[Tensor], Tensor]]:
        """What `steer()` needs. Each forward pass must see one position a row."""
        return {layer: self._intervention(layer) for layer in self._layers}

    def _intervention(self, layer: int) -> Callable[[Tensor], Tensor]:
        pair = (self._probes.raw[layer - 1], self._probes.scale_free[layer - 1])
        device = self._target.device
        weight = torch.stack([p.weight for p in pair]).double().to(device)[self._features]
        bias = torch.tensor([p.bias for p in pair], dtype=torch.float64, device=device)
        bias = bias[self._features]
        self._slope[layer] = weight.norm(dim=-1)
        direction = weight / self._slope[layer].unsqueeze(-1)
        limit, active = self.limit(layer), self._active[layer]

        def shift(hidden: Tensor) -> Tensor:
            assert hidden.shape[1] == 1, "SCAV's generation sees one position a row"
            states = hidden[:, 0].double()
            first = not self._distance[layer]
            acting = active if first else active & self._every_token
            distance = distance_to_target(states, weight, bias, self._target)
            self._distance[layer].append(distance)
            length = distance.clamp(min=0).minimum(limit) * acting
            moved = states - direction * length.unsqueeze(-1)
            return moved.to(hidden.dtype).unsqueeze(1)

        return shift

    def limit(self, layer: int) -> Tensor:
        """(B,), the longest shift allowed at a layer, in the states' own unit."""
        return self._budget * self._probes.mean_norm[layer - 1]

    def record(self, passes: Tensor) -> ShiftRecord:
        """What was done to each row in its own passes (B,), before it ended."""
        depth, rows = len(self._probes.raw), len(self._target)
        last = torch.zeros(rows, depth, dtype=torch.float64)
        longest = torch.zeros(rows, depth, dtype=torch.float64)
        cut = torch.zeros(rows, dtype=torch.bool)
        room_below = torch.full((rows,), inf, dtype=torch.float64)
        room_above = torch.full((rows,), inf, dtype=torch.float64)
        every_token = self._every_token.cpu()
        for layer in self._layers:
            distance = torch.stack(self._distance[layer]).cpu()  # (S, B)
            limit, slope = self.limit(layer).cpu(), self._slope[layer].cpu()
            step = torch.arange(len(distance)).unsqueeze(1)
            acted = (step < passes) & self._active[layer].cpu() & ((step == 0) | every_token)
            length = distance.clamp(min=0).minimum(limit) * acted
            last[:, layer - 1] = length[0]
            longest[:, layer - 1] = length.amax(0)
            cut |= (acted & (distance > limit)).any(0)
            # Another target logit t' puts the distance at distance + (t - t') / slope. The shift
            # stays as it is while that is still beyond the limit, or still not above 0.
            at_limit, at_rest = distance >= limit, distance <= 0
            below = torch.where(at_limit, inf, torch.where(at_rest, -distance, 0.0))
            above = torch.where(at_rest, inf, torch.where(at_limit, distance - limit, 0.0))
            for room, found in ((room_below, below), (room_above, above)):
                found = torch.where(acted, found * slope, inf).amin(0)
                torch.minimum(room, found, out=room)
        target = self._target.cpu()
        return ShiftRecord(last, longest, cut, target - room_below, target + room_above)


@dataclass(frozen=True)
class ShiftRecord:
    """How the rows of a batch were shifted.

    Attributes:
        last: (B, L) shift norms at the prompt's last token.
        longest: (B, L) the longest shift norm over the row's tokens.
        cut: (B,) whether the budget cut any shift short.
        lowest_logit: (B,) down to which target logit the row would have come out the same.
        highest_logit: (B,) up to which.
    """

    last: Tensor
    longest: Tensor
    cut: Tensor
    lowest_logit: Tensor
    highest_logit: Tensor
