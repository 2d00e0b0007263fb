"""What tells whether two runs were asked for the same."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from omegaconf import DictConfig, open_dict, read_write

from es2_lightning.config.secrets import resolved

FOLDER = "<folder>"
NO_MATTER = ("objectives", "estimate", "progress")
"""Keys that change nothing of what a run leaves."""


def config_hash(config: DictConfig, *, folder: Path, seed: bool = True) -> str:
    """16 hex digits of a resolved config: equal for runs that come to the same result.

    Where the run writes, and whether it goes on from its own checkpoint, does not count.

    Args:
        config: Composed, without Hydra's node.
        folder: The run's; wherever it stands in a value, it is left out.
        seed: Whether the seed counts. Without it, runs are alike that differ in nothing else.
    """
    copy = config.copy()
    with read_write(copy), open_dict(copy):
        if copy.get("ckpt_path") == "last":
            copy.ckpt_path = None
        for key in NO_MATTER:
            copy.pop(key, None)
        if "callbacks" in copy:
            copy.callbacks.pop("display", None)
        if not seed:
            copy.seed = 0
    text = json.dumps(resolved(copy), sort_keys=True, default=str)
    # As JSON writes it, so that it is found there.
    text = text.replace(json.dumps(str(folder))[1:-1], FOLDER)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
