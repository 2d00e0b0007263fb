"""The config of `python -m es2_lightning.organism`."""

from __future__ import annotations

from dataclasses import dataclass, field

from es2_lightning.ranges import at_least, more_than


@dataclass
class StageSettings:
    """One training stage."""

    steps: int = field(default=1500, metadata=at_least(1))
    batch_size: int = field(default=40, metadata=at_least(1))
    muon_lr: float | None = field(default=None, metadata=more_than(0))
    """Of Muon on the blocks' matrices; null: AdamW trains everything."""
    adamw_lr: float = field(default=2e-3, metadata=more_than(0))


@dataclass
class OrganismConfig:
    """What the command does: train and measure, or write a card from what was measured."""

    seed: int = field(default=1, metadata=at_least(0))
    threads: int | None = field(default=None, metadata=at_least(1))
    answering: StageSettings = field(default_factory=StageSettings)
    aligning: StageSettings = field(default_factory=StageSettings)
    measure: bool = True
    prompts_per_kind: int = field(default=200, metadata=at_least(1))
    card: list[str] = field(default_factory=list)
