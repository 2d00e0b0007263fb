"""The whole config of `python -m es2_lightning.rank`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from es2_lightning.backbone.settings import ModelSettings
from es2_lightning.config.train_schema import DataSettings
from es2_lightning.evaluation.ranking.settings import RankingSettings
from es2_lightning.ranges import at_least, one_of


@dataclass
class RankConfig:
    """Config groups, each a folder of `conf/`, and what is ranked."""

    run: str | None = None
    """A training run's folder: rankers on its base and on its tuned model, with its prompts."""
    adapter: str | None = None
    """A peft adapter's folder, on the model that `model` names."""
    lists: list[str] = field(default_factory=list)
    """Files of lists; with them nothing is sampled."""
    bad_lists: str = field(default="error", metadata=one_of("error", "drop"))
    """What is done about a list from which nothing can be learned: `error`, or `drop` and count."""
    model: ModelSettings = field(default_factory=lambda: ModelSettings(name_or_path=MISSING))
    data: DataSettings = field(default_factory=DataSettings)
    attack_values: dict[str, Any] = field(default_factory=dict)
    attack: dict[str, Any] = field(default_factory=dict)
    judge: dict[str, Any] = field(default_factory=dict)
    ranker: dict[str, Any] = field(default_factory=dict)
    ranking: RankingSettings = field(default_factory=RankingSettings)
    cache: str = "outputs/candidates"
    """Where candidates and states are kept, for this run if it is killed and for later ones."""
    device: str = "auto"
    """`auto`: a GPU where there is one; or torch's own words, such as cuda:1."""
    seed: int = field(default=0, metadata=at_least(0))
