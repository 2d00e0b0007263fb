"""The loggers of a job, as its config and its folder say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from es2_lightning.config import job
from es2_lightning.config.logger_check import chosen_loggers
from es2_lightning.config.objects import build
from es2_lightning.reports.wandb_record import read_record

PROJECT = "es2-lightning"
_IN_TAGS = ("model", "method", "data", "layers", "loss", "experiment")
_LONGEST_TAG = 64


def build_loggers(
    group: Mapping[str, Any], folder: Path, *, job_type: str, trained: Path | None = None
) -> list[Any]:
    """Lightning's loggers, of which none has begun to write.

    Args:
        group: The config's `logger`.
        folder: The job's, into which they write.
        job_type: What W&B calls the job where the config does not: `train` or `evaluate`.
        trained: The training run whose model is looked at, in whose W&B project this one belongs.

    Raises:
        UserError: One does not take a value.
    """
    loggers = []
    for name, node in chosen_loggers(group).items():
        words = {**node, "save_dir": str(folder)}
        if is_wandb(node):
            words |= {
                "project": words.get("project") or _project(trained),
                "job_type": words.get("job_type") or job_type,
            }
            words = _of_wandb(words, folder, offline=bool(group.get("offline")))
            words["_convert_"] = "all"
        loggers.append(build(words, f"logger.{name}"))
    return loggers


def is_wandb(node: Mapping[str, Any]) -> bool:
    """Whether a logger of the config is W&B's."""
    return str(node.get("_target_", "")).endswith("WandbLogger")


def _project(trained: Path | None) -> str:
    theirs = {} if trained is None else read_record(trained)
    return str(theirs.get("project") or os.environ.get("WANDB_PROJECT") or PROJECT)


def _of_wandb(words: dict[str, Any], folder: Path, *, offline: bool) -> dict[str, Any]:
    sweep = job.sweep_dir()
    own = folder.name if sweep is None else f"{sweep.name}/{os.path.relpath(folder, sweep)}"
    tags = [f"{group}={choice}" for group, choice in job.choices().items() if group in _IN_TAGS]
    if words.get("tags"):
        tags += [str(tag) for tag in words["tags"]]
    words |= {
        "name": words.get("name") or own,
        "group": words.get("group") or (sweep.name if sweep else None),
        "tags": list(dict.fromkeys(tag[:_LONGEST_TAG] for tag in tags)),
        # A run that goes on is the same run in W&B.
        "id": words.get("id") or read_record(folder).get("id"),
    }
    if offline:
        # Not Lightning's `offline`, which sets a variable of the whole process: later jobs see it.
        words["mode"] = "offline"
    return words
