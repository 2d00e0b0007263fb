"""What was measured of one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from es2_lightning.evaluation.attacks.budget_curve import BudgetCurve
from es2_lightning.evaluation.attacks.scav_shift import ScavSetting
from es2_lightning.evaluation.intervals import Estimate
from es2_lightning.evaluation.outcomes import Outcome
from es2_lightning.evaluation.separability import LayerSeparability, Projection
from es2_lightning.prompts.prompt import Kind


@dataclass(frozen=True)
class GridEntry:
    """One configuration of the grid, and the share of validation prompts that it recovered."""

    setting: ScavSetting
    validation: Estimate


@dataclass(frozen=True)
class ScavMeasurement:
    """SCAV on the harmful test prompts, by prompt in their order.

    Attributes:
        default: The default configuration.
        best: The one that recovered most validation prompts.
        default_outcomes: What the default configuration made of each prompt.
        best_outcomes: What the best one made of it.
        union: Whether any configuration of the grid, or the direct prompt, was answered.
        curve: Recovered against the largest relative shift allowed, union over the grid.
        grid: All configurations.
        shift: By layer 1 … L, the default configuration's mean shift norm at the prompt's last
            token, in the states' own unit.
        relative_shift: The same over each layer's mean state norm.
        largest_shift: The largest of a prompt's shifts over layers, on average over prompts.
        largest_relative_shift: The same, relative.
    """

    default: ScavSetting
    best: ScavSetting
    default_outcomes: list[Outcome]
    best_outcomes: list[Outcome]
    union: list[bool]
    curve: BudgetCurve
    grid: list[GridEntry]
    shift: list[Estimate]
    relative_shift: list[Estimate]
    largest_shift: Estimate
    largest_relative_shift: Estimate


@dataclass(frozen=True)
class Measurement:
    """One model on the test prompts.

    Attributes:
        model: Its label, such as `base` or `tuned`.
        judge: The judge's id.
        direct: By kind of prompt, what became of each without an attack. A kind of which there
            are no prompts is absent.
        separability: By layer 1 … L.
        projections: Of the layers asked for.
        scav: The attack; None where it could not be made.
        no_scav: Why it could not.
        generations: Every prompt, attack, output, outcome and shift norm, one dict each.
    """

    model: str
    judge: str
    direct: dict[Kind, list[Outcome]]
    separability: list[LayerSeparability]
    projections: list[Projection]
    scav: ScavMeasurement | None
    no_scav: str | None = None
    generations: Sequence[dict[str, Any]] = field(default=(), repr=False)
