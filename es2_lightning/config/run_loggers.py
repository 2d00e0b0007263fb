"""The loggers of a job, as its config and its folder say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from es2_lightning.config import job
from es2_lightning.config.logger_check import chosen_loggers
from es2_lightning.config.objects import build
from es2_lightning.config.secrets import resolved
from es2_lightning.reports.wandb_record import read_record

PROJECT = "es2-lightning"
_IN_TAGS = ("model", "method", "data", "layers", "loss", "experiment")
_LONGEST_TAG = 64


def build_loggers(group: Mapping[str, Any], folder: Path, *, job_type: str) -> list[Any]:
    """Lightning's loggers, of which none has begun to write.

    Args:
        group: The config's `logger`.
        folder: The job's, into which they write.
        job_type: What W&B calls the job where the config does not: `train` or `evaluate`.

    Raises:
        UserError: One does not take a value.
    """
    loggers = []
    for name, node in chosen_loggers(group).items():
        words = {**node, "save_dir": str(folder)}
        if is_wandb(node):
            words = _of_wandb(words, folder, job_type, offline=bool(group.get("offline")))
            # Handed over as it is: a config in a config would be instantiated as well.
            words = {**words, "_convert_": "all", "_recursive_": False}
        loggers.append(build(words, f"logger.{name}"))
    return loggers


def is_wandb(node: Mapping[str, Any]) -> bool:
    """Whether a logger of the config is W&B's."""
    return str(node.get("_target_", "")).endswith("WandbLogger")


def _of_wandb(
    words: dict[str, Any], folder: Path, job_type: str, *, offline: bool
) -> dict[str, Any]:
    sweep = job.sweep_dir()
    own = folder.name if sweep is None else f"{sweep.name}/{os.path.relpath(folder, sweep)}"
    tags = [f"{group}={choice}" for group, choice in job.choices().items() if group in _IN_TAGS]
    if words.get("tags"):
        tags += [str(tag) for tag in words["tags"]]
    words |= {
        "project": words.get("project") or os.environ.get("WANDB_PROJECT") or PROJECT,
        "name": words.get("name") or own,
        "group": words.get("group") or (sweep.name if sweep else None),
        "job_type": words.get("job_type") or job_type,
        "tags": list(dict.fromkeys(tag[:_LONGEST_TAG] for tag in tags)),
        # A run that goes on is the same run in W&B.
        "id": words.get("id") or read_record(folder).get("id"),
        # Without secrets, and with the environment's variables as they are written.
        "config": resolved(job.composed_config()),
    }
    if offline:
        # Not Lightning's `offline`, which sets a variable of the whole process: later jobs see it.
        words["mode"] = "offline"
    return words
