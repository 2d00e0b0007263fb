"""What a training's checkpoint holds, and how a run goes on from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L

from es2_lightning.training.across_ranks import of_all_ranks
from es2_lightning.training.checkpoints import (
    keep_trainable,
    random_state,
    require_ours,
    require_same_keys,
    require_same_layers,
    require_same_method,
    require_same_model,
)
from es2_lightning.training.schedule import StageSchedule
from es2_lightning.training.whole_state import (
    optimizer_state_by_name,
    optimizer_state_by_position,
    sharded_as,
)


class ResumableModule(L.LightningModule):
    """Trainable weights, optimizer, schedule and random numbers, in plain containers.

    Args:
        layers: The layer set, 1 … L; empty where the method has none.
        identity: The base model's (`backbone.model_identity`): a checkpoint of another model is
            refused. None: nothing is compared.

    Attributes:
        schedule: Which stage runs; None before `fit`.
        resumed: What the checkpoint says that the run goes on from; None: there is none.
    """

    def __init__(self, *, layers: Sequence[int], identity: Mapping[str, str] | None) -> None:
        super().__init__()
        self.layers = sorted(layers)
        self.identity = dict(identity or {})
        self.schedule: StageSchedule | None = None
        self.resumed: dict[str, Any] | None = None
        # Lightning must not ask for the frozen weights back; on_load_checkpoint checks the keys.
        self.strict_loading = False

    def state_of_method(self) -> dict[str, Any]:
        """What a checkpoint holds of the method beside weights and schedule; plain containers."""
        return {}

    def load_state_of_method(self, state: Mapping[str, Any]) -> None:
        """Go on with what `state_of_method` gave."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Trainable weights only, and what a resumed run needs, in plain containers."""
        checkpoint["state_dict"] = keep_trainable(self, checkpoint["state_dict"])
        checkpoint["optimizer_states"] = [
            optimizer_state_by_name(optimizer, self) for optimizer in self.trainer.optimizers
        ]
        checkpoint["es2"] = {
            "method": type(self).__name__,
            "model": self.identity,
            "layers": list(self.layers),
            **self.state_of_method(),
            "schedule": self.running.state_dict(),
            "random_states": of_all_ranks(random_state()),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with a saved schedule.

        Raises:
            UserError: The checkpoint is of another method, model, layer set or schedule.
        """
        self.check_checkpoint(checkpoint)
        parameters = dict(self.named_parameters())
        checkpoint["state_dict"] = {
            name: sharded_as(parameters[name], tensor)
            for name, tensor in checkpoint["state_dict"].items()
        }
        checkpoint["optimizer_states"] = [
            optimizer_state_by_position(state, self) for state in checkpoint["optimizer_states"]
        ]
        state = checkpoint["es2"]
        self.load_state_of_method(state)
        self.resumed = state
        if self.schedule is not None:  # Sharded models load after `on_fit_start`.
            self.schedule.load_state_dict(state["schedule"])

    def check_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that this run cannot go on from.

        Raises:
            UserError: It is of another method, model, tokenizer, adapter or layer set, or it is
                none of ours.
        """
        require_ours(checkpoint)
        require_same_method(checkpoint["es2"], type(self).__name__)
        require_same_model(checkpoint["es2"]["model"], self.identity)
        require_same_layers(checkpoint["es2"]["layers"], self.layers)
        require_same_keys(self, checkpoint)

    @property
    def running(self) -> StageSchedule:
        """The schedule, while it runs."""
        assert self.schedule is not None, "the schedule is built in on_fit_start"
        return self.schedule
