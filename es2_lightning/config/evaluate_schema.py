"""The whole config of `python -m es2_lightning.evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from es2_lightning.backbone.settings import ModelSettings
from es2_lightning.config.train_schema import DataSettings
from es2_lightning.evaluation.progress import WAYS
from es2_lightning.evaluation.settings import EvaluateSettings
from es2_lightning.ranges import at_least, one_of


@dataclass
class EvaluateConfig:
    """Config groups, each a folder of `conf/`, and what is measured."""

    run: str | None = None
    """A training run's folder: its base model and its tuned model, on its prompts."""
    adapter: str | None = None
    """A peft adapter's folder, on the model that `model` names."""
    model: ModelSettings = field(default_factory=lambda: ModelSettings(name_or_path=MISSING))
    data: DataSettings = field(default_factory=DataSettings)
    attack_values: dict[str, Any] = field(default_factory=dict)
    attack: dict[str, Any] = field(default_factory=dict)
    judge: dict[str, Any] = field(default_factory=dict)
    capability: dict[str, Any] = field(default_factory=dict)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    logger: dict[str, Any] = field(default_factory=dict)
    device: str = "auto"
    """`auto`: a GPU where there is one; or torch's own words, such as cuda:1."""
    seed: int = field(default=0, metadata=at_least(0))
    progress: str = field(default="auto", metadata=one_of(*WAYS))
    """`bar`: on a terminal; `plain`: lines in the log; `auto`: as there is a terminal; `none`."""
