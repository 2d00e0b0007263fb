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
    """One stage.

    Attributes:
        layers: The layers separated at once.
        kl_threshold: τ, nats.
        max_epochs: Its budget, in passes over the harmful prompts.
        max_steps: Its budget, in optimizer steps; the smaller of the two counts.
    """

    layers: tuple[int, ...]
    kl_threshold: float
    max_epochs: float | None
    max_steps: int | None

    def budget(self, steps_per_epoch: int) -> float:
        """Its budget in optimizer steps."""
        return min(
            math.inf if self.max_epochs is None else math.ceil(self.max_epochs * steps_per_epoch),
            math.inf if self.max_steps is None else self.max_steps,
        )


@dataclass(frozen=True)
class StageEnd:
    """How a stage ended.

    Attributes:
        stage: Its number, from 0.
        layers: Its layers.
        reason: `kl_threshold`: the mean KL of the step exceeded τ and the step was dropped.
        steps: Optimizer steps applied in the stage.
        kl: The last step's mean KL, nats; None of a method that takes none.
    """

    stage: int
    layers: tuple[int, ...]
    reason: EndReason
    steps: int
    kl: float | None


def make_stages(settings: ScheduleSettings, layers: Sequence[int]) -> list[Stage]:
    """The stages over a layer set, shallow first.

    Raises:
        UserError: No budget, or a list of values is not as long as there are stages.
    """
    if settings.max_epochs is None and settings.max_steps is None:
        raise UserError(
            "schedule: give schedule.max_epochs or schedule.max_steps, the budget of each stage"
        )
    groups = [tuple(layers)] if settings.order == "joint" else [(layer,) for layer in layers]

    def for_each(key: str) -> list[Any]:
        value = getattr(settings, key)
        if not isinstance(value, (list, tuple)):
            return [value] * len(groups)
        if len(value) != len(groups):
            raise UserError(
                f"schedule.{key}={list(value)} has {len(value)} values, but there are "
                f"{len(groups)} stages over layers {list(layers)}: give one number for all "
                "stages, or one for each"
            )
        return list(value)

    values = zip(
        groups, *(for_each(k) for k in ("kl_threshold", "max_epochs", "max_steps")), strict=True
    )
    return [
        Stage(group, float(threshold), max_epochs=epochs, max_steps=steps)
        for group, threshold, epochs, steps in values
    ]


class StageSchedule:
    """Counts optimizer steps and decides, step by step, which are applied and when stages end.

    Args:
        stages: In the order in which they run.
        settings: The convergence rule.
        steps_per_epoch: Optimizer steps in one pass over the harmful prompts.
    """

    def __init__(
        self, stages: Sequence[Stage], settings: ScheduleSettings, *, steps_per_epoch: int
    ) -> None:
        self.stages = list(stages)
        self.settings = settings
        self.steps_per_epoch = steps_per_epoch
        self.ends: list[StageEnd] = []
        self._batch_kl: list[float] = []
        self._batch_loss: list[float] = []
        self.steps = 0
        self._window: list[float] = []
        self._best: float | None = None
        self._stale_epochs = 0

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

    def add_batch(self, *, kl: float, loss: float) -> None:
        """Record one of the batches that the optimizer step under way accumulates.

        Args:
            kl: The batch's KL, nats, before the step's update.
            loss: The batch's loss.
        """
        self._batch_kl.append(kl)
        self._batch_loss.append(loss)

    def drops_step(self) -> bool:
        """Whether the step under way must not be applied: its mean KL exceeds τ, or is NaN."""
        return self.finished or not _mean(self._batch_kl) <= self.stage.kl_threshold

    def end_step(self) -> StageEnd | None:
        """Count the step under way, applied or dropped; the next batch belongs to a new one.

        Returns:
            How the stage ended, or None if it goes on.
        """
        if self.finished:
            return None
        dropped, kl, loss = self.drops_step(), _mean(self._batch_kl), _mean(self._batch_loss)
        self._batch_kl, self._batch_loss = [], []
        if dropped:
            return self._end("kl_threshold", kl)
        self.steps += 1
        self._window.append(loss)
        if len(self._window) == self.steps_per_epoch:
            self._close_window()
        if self.settings.patience is not None and self._stale_epochs >= self.settings.patience:
            return self._end("converged", kl)
        if self.steps >= self.stage.budget(self.steps_per_epoch):
            return self._end("budget", kl)
        return None

    def _close_window(self) -> None:
        mean = _mean(self._window)
        self._window = []
        if self._best is None or self._best - mean > self.settings.min_improvement * abs(
            self._best
        ):
            self._best, self._stale_epochs = mean, 0
        else:
            self._stale_epochs += 1

    def _end(self, reason: EndReason, kl: float) -> StageEnd:
        # Without a threshold there is nothing that would be compared with it.
        measured = None if math.isinf(self.stage.kl_threshold) else kl
        end = StageEnd(self.stage_index, self.stage.layers, reason, self.steps, measured)
        self.ends.append(end)
        self.steps, self._window, self._best, self._stale_epochs = 0, [], None, 0
        return end

    def state_dict(self) -> dict[str, Any]:
        """The schedule's state in plain containers.

        Without the batches of a step under way: the gradients that they accumulated are in no
        checkpoint either.
        """
        return {
            "stages": [asdict(stage) for stage in self.stages],
            "ends": [asdict(end) for end in self.ends],
            "steps": self.steps,
            "window": list(self._window),
            "best": self._best,
            "stale_epochs": self._stale_epochs,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state. Budgets may differ: a longer one goes on.

        Raises:
            UserError: It was saved with other layers or thresholds.
        """
        saved = [(list(s["layers"]), s["kl_threshold"]) for s in state["stages"]]
        here = [(list(stage.layers), stage.kl_threshold) for stage in self.stages]
        if saved != here:
            raise UserError(
                f"ckpt_path: the checkpoint was trained with stages of (layers, kl_threshold) "
                f"{saved}, this run has {here}: resume with the same layers and schedule, or start "
                "a new run without ckpt_path"
            )
        self.ends = [StageEnd(**{**end, "layers": tuple(end["layers"])}) for end in state["ends"]]
        self.steps = state["steps"]
        self._window = list(state["window"])
        self._best = state["best"]
        self._stale_epochs = state["stale_epochs"]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
