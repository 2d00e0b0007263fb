"""What a sweep's jobs came to, read from their folders: a row for each, and for each setting."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from es2_lightning.config.job_record import JobRecord, records
from es2_lightning.evaluation.headline_figures import FIGURES, are_damaged, headline_figures

STAGES = "stages.json"
LAYERS = "layers.json"
CONFIG = "config.yaml"
NO_SETTINGS = ("seed", "ckpt_path", "objectives")
"""Keys that make no difference between settings."""


@dataclass(frozen=True)
class SweepRow:
    """A job of a sweep.

    Attributes:
        folder: Its own.
        record: What it tells about itself.
        varying: Those of its words in which the sweep's jobs differ, without the seed's.
        layers: Those that it separates, such as `3,6`; before they are known, the choice's name.
        kl_weight: None where it failed before its config was saved; as is the seed.
        steps: Of each stage that ended.
        stage_ends: Why each did.
        figures: By the names of FIGURES; NaN for what is not known, or not yet.
        damaged: Whether its results cannot be read.
    """

    folder: Path
    record: JobRecord
    varying: tuple[str, ...]
    layers: str
    kl_weight: float | None
    seed: int | None
    steps: tuple[int, ...]
    stage_ends: tuple[str, ...]
    figures: dict[str, float]
    damaged: bool

    @property
    def number(self) -> int:
        """The job's."""
        return self.record.number


@dataclass(frozen=True)
class Spread:
    """A figure over seeds.

    Attributes:
        n: In how many jobs it is known.
        std: The sample's standard deviation; NaN for fewer than two, or infinite ones.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Over all that are known."""
        known = [value for value in values if not math.isnan(value)]
        if not known:
            return cls(0, math.nan, math.nan, math.nan, math.nan)
        spreads = len(known) > 1 and all(map(math.isfinite, known))
        std = stdev(known) if spreads else math.nan
        return cls(len(known), mean(known), std, min(known), max(known))


@dataclass(frozen=True)
class SettingRow:
    """Jobs that differ in nothing but the seed.

    Attributes:
        rows: Those that finished.
        figures: By the names of FIGURES.
    """

    rows: tuple[SweepRow, ...]
    figures: dict[str, Spread]

    @property
    def first(self) -> SweepRow:
        """Stands for all where they are alike."""
        return self.rows[0]

    @property
    def seeds(self) -> tuple[int | None, ...]:
        """Of its jobs."""
        return tuple(row.seed for row in self.rows)


def read_sweep(folder: Path) -> list[SweepRow]:
    """Every job that began, in the order of their numbers; none for a folder that is no sweep."""
    jobs = records(folder)
    counted = Counter(word for record in jobs.values() for word in set(record.words))
    return [
        _row(job, record, {word for word, n in counted.items() if n < len(jobs)})
        for job, record in jobs.items()
    ]


def over_seeds(rows: Sequence[SweepRow]) -> list[SettingRow]:
    """The finished jobs by their settings; nothing where no setting has two seeds."""
    settings: dict[str, list[SweepRow]] = {}
    for row in rows:
        if row.record.status == "finished":
            settings.setdefault(row.record.settings_hash, []).append(row)
    if all(len(alike) < 2 for alike in settings.values()):
        return []
    return [
        SettingRow(
            tuple(alike),
            {name: Spread.of([row.figures[name] for row in alike]) for name in FIGURES},
        )
        for alike in settings.values()
    ]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points no other one beats: none is as good in both, and better in one.

    Args:
        points: In both, the larger the better; NaN is never on the front.

    Returns:
        Their places in `points`, by their first figure; of equal points, all.
    """
    known = [i for i, point in enumerate(points) if not any(map(math.isnan, point))]
    front = [
        i
        for i in known
        if not any(
            points[j] != points[i] and points[j][0] >= points[i][0] and points[j][1] >= points[i][1]
            for j in known
        )
    ]
    return sorted(front, key=lambda i: points[i])


def _row(folder: Path, record: JobRecord, differing: set[str]) -> SweepRow:
    config = _read_yaml(folder / CONFIG)
    ends = _read_json(folder / STAGES, [])
    separated = _read_json(folder / LAYERS, {}).get("separated")
    layers = record.choices.get("layers", "")
    finished = record.status == "finished"
    return SweepRow(
        folder=folder,
        record=record,
        varying=tuple(
            w for w in record.words if w in differing and w.partition("=")[0] not in NO_SETTINGS
        ),
        layers=",".join(map(str, separated)) if separated else layers,
        kl_weight=(config.get("loss") or {}).get("kl_weight"),
        seed=config.get("seed"),
        steps=tuple(end["steps"] for end in ends),
        stage_ends=tuple(end["reason"] for end in ends),
        # What an earlier try left behind is not this one's.
        figures=headline_figures(folder) if finished else dict.fromkeys(FIGURES, math.nan),
        damaged=finished and are_damaged(folder),
    )


def _read_json(path: Path, otherwise: Any) -> Any:
    """What a file holds; `otherwise` where it is not there, not whole, or something else."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return otherwise
    return found if isinstance(found, type(otherwise)) else otherwise


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}
