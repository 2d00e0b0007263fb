"""The whole config of `python -m es2_lightning.train`, typed where a mistake would be costly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from es2_lightning.backbone.settings import ModelSettings
from es2_lightning.evaluation.headline_figures import FIGURES
from es2_lightning.evaluation.progress import WAYS
from es2_lightning.evaluation.settings import EvaluateSettings
from es2_lightning.ranges import accepts, at_least, one_of
from es2_lightning.training.settings import (
    LayerSettings,
    LossSettings,
    ScheduleSettings,
    StepSettings,
)


def _are_figures(names: list[str]) -> bool:
    return bool(names) and set(names) <= FIGURES.keys()


@dataclass
class DataSettings:
    """Which prompts, and how many of each class in a batch."""

    source: dict[str, Any] = field(default_factory=dict)
    harmless_per_batch: int = field(default=50, metadata=at_least(1))
    harmful_per_batch: int = field(default=10, metadata=at_least(1))
    use_responses: bool = False
    """Let a harmless prompt be followed by its response, so that the KL can cover it."""
    too_long: str = field(default="drop", metadata=one_of("drop", "truncate_middle"))
    """What is done about prompts of more than model.max_length tokens: dropped, or the middle of
    the user's text is cut; both are counted."""


@dataclass
class TrainConfig:
    """Config groups, each a folder of `conf/`."""

    model: ModelSettings = field(default_factory=lambda: ModelSettings(name_or_path=MISSING))
    data: DataSettings = field(default_factory=DataSettings)
    layers: LayerSettings = field(default_factory=LayerSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    step: StepSettings = field(default_factory=StepSettings)
    optimizer: dict[str, Any] = field(default_factory=dict)
    method_values: dict[str, Any] = field(default_factory=dict)
    method: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    attack_values: dict[str, Any] = field(default_factory=dict)
    attack: dict[str, Any] = field(default_factory=dict)
    judge: dict[str, Any] = field(default_factory=dict)
    capability: dict[str, Any] = field(default_factory=dict)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    logger: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    seed: int = field(default=0, metadata=at_least(0))
    ckpt_path: str | None = None
    objectives: list[str] = field(
        default_factory=lambda: ["scav_dsr", "capability_kept"],
        metadata=accepts(f"a list of {' | '.join(FIGURES)}", _are_figures),
    )
    progress: str = field(default="auto", metadata=one_of(*WAYS))
    """How far things are: `bar`: on a terminal; `plain`: lines in the log; `auto`: a bar where
    there is a terminal, else lines; `none`: each stage's end alone."""
    estimate: bool = False
    """Tell what the run will take, and stop there."""
