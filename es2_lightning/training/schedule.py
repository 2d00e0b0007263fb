"""Algorithm 1 as a state machine: which layers are separated now, and when a stage ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from es2_lightning.errors import UserError
from es2_lightning.training.settings import ScheduleSettings

EndReason = Literal["kl_threshold", "budget", "converged"]


@dataclass(frozen=True)
class Stage:
    """One stage: the layers separated at once, and its KL threshold in nats."""

    layers: tuple[int, ...]
    kl_threshold: float


@dataclass(frozen=True)
class StageEnd:
    """How a stage ended.

    Attributes:
        stage: Its number, from 0.
        layers: Its layers.
        reason: `kl_threshold`: the mean KL of the step exceeded τ and the step was dropped.
        steps: Optimizer steps applied in the stage.
        kl: The last step's mean KL, nats.
    """

    stage: int
    layers: tuple[int, ...]
    reason: EndReason
    steps: int
    kl: float


def make_stages(settings: ScheduleSettings, layers: Sequence[int]) -> list[Stage]:
    """The stages over a layer set, shallow first.

    Raises:
        UserError: The number of thresholds is not the number of stages.
    """
    groups = [tuple(layers)] if settings.order == "joint" else [(layer,) for layer in layers]
    thresholds = settings.kl_threshold
    if isinstance(thresholds, (list, tuple)):
        if len(thresholds) != len(groups):
            raise UserError(
                f"schedule.kl_threshold={list(thresholds)} has {len(thresholds)} values, but there "
                f"are {len(groups)} stages over layers {list(layers)}: give one number for all "
                "stages, or one for each"
            )
        values = [float(value) for value in thresholds]
    else:
        values = [float(thresholds)] * len(groups)
    return [Stage(layers=g, kl_threshold=v) for g, v in zip(groups, values, strict=True)]


class StageSchedule:
    """Counts optimizer steps and decides, step by step, which are applied and when stages end.

    Args:
        stages: In the order in which they run.
        settings: Budgets and convergence.
        steps_per_epoch: Optimizer steps in one pass over the harmful prompts.
    """

    def __init__(
        self, stages: Sequence[Stage], settings: ScheduleSettings, *, steps_per_epoch: int
    ) -> None:
        if settings.max_epochs is None and settings.max_steps is None:
            raise UserError("schedule: give max_epochs or max_steps, the budget of each stage")
        self.stages = list(stages)
        self.settings = settings
        self.steps_per_epoch = steps_per_epoch
        epochs_budget = (
            math.inf
            if settings.max_epochs is None
            else math.ceil(settings.max_epochs * steps_per_epoch)
        )
        self.budget = min(epochs_budget, settings.max_steps or math.inf)
        self.ends: list[StageEnd] = []
        self._start_stage()

    @property
    def finished(self) -> bool:
        """Whether every stage has ended."""
        return len(self.ends) == len(self.stages)

    @property
    def stage_index(self) -> int:
        """The running stage, from 0; the last one once finished."""
        return min(len(self.ends), len(self.stages) - 1)

    @property
    def stage(self) -> Stage:
        """The running stage; the last one once finished."""
        return self.stages[self.stage_index]

    def exceeds(self, kl: float) -> bool:
        """Whether a step with this mean KL must be dropped. A NaN is dropped too."""
        return not kl <= self.stage.kl_threshold

    def observe(self, *, kl: float, loss: float) -> StageEnd | None:
        """Record one optimizer step; call once for each, applied or dropped.

        Args:
            kl: Mean KL of the whole optimizer step, before its update, nats.
            loss: Mean loss of the step.

        Returns:
            How the stage ended, or None if it goes on.
        """
        if self.exceeds(kl):
            return self._end("kl_threshold", kl)
        self.steps += 1
        self._window.append(loss)
        if len(self._window) == self.steps_per_epoch:
            self._close_window()
        if self.settings.patience is not None and self._stale_epochs >= self.settings.patience:
            return self._end("converged", kl)
        if self.steps >= self.budget:
            return self._end("budget", kl)
        return None

    def _close_window(self) -> None:
        mean = sum(self._window) / len(self._window)
        self._window = []
        if self._best is None or self._best - mean > self.settings.min_improvement * abs(
            self._best
        ):
            self._best, self._stale_epochs = mean, 0
        else:
            self._stale_epochs += 1

    def _end(self, reason: EndReason, kl: float) -> StageEnd:
        end = StageEnd(self.stage_index, self.stage.layers, reason, self.steps, kl)
        self.ends.append(end)
        self._start_stage()
        return end

    def _start_stage(self) -> None:
        self.steps = 0
        self._window: list[float] = []
        self._best: float | None = None
        self._stale_epochs = 0

    def state_dict(self) -> dict[str, Any]:
        """The schedule's state in plain containers."""
        return {
            "stages": [asdict(stage) for stage in self.stages],
            "ends": [asdict(end) for end in self.ends],
            "steps": self.steps,
            "window": list(self._window),
            "best": self._best,
            "stale_epochs": self._stale_epochs,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            UserError: It was saved with other stages.
        """
        saved = [Stage(tuple(s["layers"]), s["kl_threshold"]) for s in state["stages"]]
        if saved != self.stages:
            raise UserError(
                f"ckpt_path: the checkpoint was trained with stages {saved}, this run has "
                f"{self.stages}: resume with the same layers and schedule"
            )
        self.ends = [StageEnd(**{**end, "layers": tuple(end["layers"])}) for end in state["ends"]]
        self.steps = state["steps"]
        self._window = list(state["window"])
        self._best = state["best"]
        self._stale_epochs = state["stale_epochs"]
