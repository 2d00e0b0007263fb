"""Folders as runs leave them, with results as no model gave them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from es2_lightning.evaluation.coherence import OutputMeasures
from es2_lightning.evaluation.comparison import Comparison, compare
from es2_lightning.evaluation.measurement import AttackMeasurement, Measurement
from es2_lightning.evaluation.results_files import write_results

from ..synthetic import FEW, measurement

METRICS = [
    {"step": i, "train/loss": -i / 10, "train/kl": i / 100, "train/stage": float(i > 2),
     "train/kl_threshold": 0.05, "train/separation": 1 + i / 10, "train/harmful_kl": i / 200}
    for i in range(6)
]  # fmt: skip
STAGES = [
    {"stage": 0, "layers": [2], "reason": "budget", "steps": 3, "kl": 0.02},
    {"stage": 1, "layers": [4], "reason": "kl_threshold", "steps": 3, "kl": 0.05},
]
CONFIG = {
    "model": {"name_or_path": "a/model", "mode": "lora", "lora": {"r": 8, "lora_alpha": 16}},
    "data": {"harmless_per_batch": 50, "harmful_per_batch": 10},
    "loss": {"kl_weight": 1.0},
    "attack": {name: {} for name in ("direct", *FEW)},
    "judge": {"exact": {}},
    "seed": 3,
}
WHOLE = OutputMeasures(incoherent=False, looping=False, unknown_words=0.0, perplexity=2.0)
Say = Callable[[str], str]


def small_comparison(
    *, attacks: Sequence[str] = FEW, strength: float = 0.3, say: Say | None = None, **given: Any
) -> Comparison:
    """Base and tuned model; `say` makes their outputs of the synthetic ones."""
    arguments = {"attacks": attacks, "judges": ("exact",), "layers": 4, "n": 12} | given
    models = (
        measurement("base", **arguments),
        measurement("tuned", strength=strength, **arguments),
    )
    base, tuned = (whole(model, say) for model in models)
    return compare(base, tuned)


def whole(measured: Measurement, say: Say | None = None) -> Measurement:
    """With how outputs read, which an evaluation writes too."""
    attacks = {name: _read(made, say) for name, made in measured.attacks.items()}
    direct = {
        kind: attacks["direct"] if kind == "harmful" else _read(made, say)
        for kind, made in measured.direct.items()
    }
    return replace(measured, attacks=attacks, direct=direct)


def _read(made: AttackMeasurement, say: Say | None) -> AttackMeasurement:
    attacked = tuple(
        replace(
            one,
            generations=tuple(
                replace(g, output=say(g.output) if say else g.output) for g in one.generations
            ),
        )
        for one in made.attacked
    )
    coherence = [[WHOLE for _ in one.generations] for one in attacked]
    return replace(made, attacked=attacked, coherence=coherence)


def run_folder(
    folder: Path,
    *,
    comparison: Comparison | None = None,
    metrics: Sequence[Mapping[str, Any]] = METRICS,
    stages: Sequence[Mapping[str, Any]] = STAGES,
    config: Mapping[str, Any] = CONFIG,
    words: Sequence[str] | None = ("loss.kl_weight=1",),
    finished: bool = True,
) -> Path:
    """A training run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config)), "utf-8")
    (folder / "layers.json").write_text(json.dumps({"separated": [2, 4], "depth": 4}))
    versions = {"seed": 3, "python": "3.11", "packages": {"torch": "2.9"}, "commit": None}
    (folder / "versions.json").write_text(json.dumps(versions))
    if words is not None:
        (folder / ".hydra").mkdir(exist_ok=True)
        (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(words)))
    if metrics:
        lines = "".join(json.dumps(row) + "\n" for row in metrics)
        (folder / "metrics.jsonl").write_text(lines)
    if stages:
        (folder / "stages.json").write_text(json.dumps(list(stages)))
    if finished:
        (folder / "adapter").mkdir(exist_ok=True)
    if comparison is not None:
        write_results(comparison, folder / "evaluation")
    return folder
