"""Which W&B run a run's folder belongs to: `wandb.json` in it. Imports nothing of W&B."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from es2_lightning.atomic_files import write_atomically

FILE = "wandb.json"


def write_record(run: Any, folder: Path) -> None:
    """Write down which run it is, so that it goes on as that, and others find it.

    Args:
        run: W&B's.
        folder: The run's own.
    """
    known = {name: getattr(run, name) for name in ("id", "name", "project", "url")}
    write_atomically(folder / FILE, json.dumps(known, indent=1) + "\n")


def read_record(folder: Path) -> dict[str, Any]:
    """What `write_record` wrote; empty where the run had no W&B run."""
    try:
        return dict(json.loads((folder / FILE).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
