"""How well harm can be read from the states of validation prompts, after each epoch.

Shape legend: N harmful prompts, M harmless prompts, D width.
"""

from __future__ import annotations

from typing import Any, TypedDict

import lightning as L
import torch
from torch import Tensor

from es2_lightning.backbone.probes import fit_probe
from es2_lightning.training.across_ranks import number_of_ranks

FEWEST, MOST = 10, 256
"""Prompts of each class: fewer are not probed, more are not needed."""


class ValidationStates(TypedDict):
    """What a `validation_step` gives to be probed: layer to (N, D) and (M, D), of all ranks."""

    harmful: dict[int, Tensor]
    harmless: dict[int, Tensor]


class ValidationProbes(L.Callback):
    """Logs `validation/layer_<l>/probe_accuracy`, from the states that validation steps give.

    Two probes for each layer, each fitted on one half of the prompts and scored on the other. No
    forward pass is made for it. A method whose validation gives no states logs none.
    """

    def __init__(self) -> None:
        self._states: dict[str, list[dict[int, Tensor]]] = {"harmful": [], "harmless": []}

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget the last epoch's."""
        self._states = {"harmful": [], "harmless": []}

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep a batch's states, but for prompts that were met before."""
        if trainer.sanity_checking or not isinstance(outputs, dict):
            return
        prompts = trainer.datamodule.splits.validation  # type: ignore[attr-defined]
        for name, kept in self._states.items():
            states = outputs.get(name)
            if not states:
                continue
            met = sum(len(next(iter(some.values()))) for some in kept)
            # An epoch passes the harmful prompts; of a batch that begins the next pass, over either
            # class, some prompts would be both fitted on and scored on.
            if met + len(next(iter(states.values()))) <= len(getattr(prompts, name)) and met < MOST:
                kept.append({layer: _in_order(state.cpu()) for layer, state in states.items()})

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Fit, score and log."""
        harmful, harmless = map(_joined, self._states.values())
        for layer in harmful.keys() & harmless.keys():
            accuracy = held_out_accuracy(harmful[layer], harmless[layer])
            if accuracy is not None:
                # Every rank has the states of all: the same figure.
                pl_module.log(
                    f"validation/layer_{layer}/probe_accuracy",
                    accuracy,
                    sync_dist=number_of_ranks() > 1,
                )


def held_out_accuracy(harmful_ND: Tensor, harmless_MD: Tensor) -> float | None:
    """The mean accuracy of two scale-free probes, each scored on what the other was fitted on.

    Returns:
        Harmful and harmless weigh the same; None where there are fewer than 10 of a class.
    """
    if min(len(harmful_ND), len(harmless_MD)) < FEWEST:
        return None
    halves = [(harmful_ND[i::2], harmless_MD[i::2]) for i in range(2)]
    scores = [fit_probe(*halves[i], scale_free=True).accuracy(*halves[1 - i]) for i in range(2)]
    return sum(scores) / 2


def _joined(parts: list[dict[int, Tensor]]) -> dict[int, Tensor]:
    layers = parts[0] if parts else ()
    return {layer: torch.cat([part[layer] for part in parts]) for layer in layers}


def _in_order(states_ND: Tensor) -> Tensor:
    """The states in the order of their prompts, which are dealt out to the ranks in turn."""
    ranks = number_of_ranks()
    numbers = torch.arange(len(states_ND))
    order = torch.cat([numbers[rank::ranks] for rank in range(ranks)])
    return states_ND[order.argsort()]
