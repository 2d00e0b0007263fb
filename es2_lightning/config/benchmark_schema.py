"""The whole config of `python -m es2_lightning.benchmark`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from es2_lightning.backbone.settings import LoraSettings, ModelSettings
from es2_lightning.config.train_schema import DataSettings
from es2_lightning.ranges import at_least
from es2_lightning.training.settings import StepSettings


def _measured_lora() -> LoraSettings:
    """The adapter whose figures are published; with dropout two ways would differ by chance."""
    return LoraSettings(lora_dropout=0.0, target_modules=["q_proj", "v_proj"])


@dataclass
class BenchmarkModelSettings(ModelSettings):
    """A model, or the shape of one."""

    shape: str | None = None
    """Random weights of this shape in place of a model; nothing is read or downloaded."""
    lora: LoraSettings = field(default_factory=_measured_lora)


@dataclass
class BenchmarkConfig:
    """What is timed, on which model and prompts."""

    benchmark: dict[str, Any] = field(default_factory=dict)
    model: BenchmarkModelSettings = field(
        default_factory=lambda: BenchmarkModelSettings(name_or_path=MISSING)
    )
    data: DataSettings = field(default_factory=DataSettings)
    step: StepSettings = field(default_factory=StepSettings)
    device: str = "auto"
    threads: int | None = field(default=None, metadata=at_least(1))
    """Of the CPU; null: torch's own choice."""
