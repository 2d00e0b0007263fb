"""What a run was made with: enough to make it again."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "es2-lightning", "torch", "transformers", "peft", "lightning", "hydra-core", "omegaconf",
    "datasets", "scikit-learn", "numpy", "wandb",
)  # fmt: skip


def save_versions(path: Path, *, seed: int) -> None:
    """Write Python's, the packages' and the machine's versions, and the seed, as JSON."""
    import torch

    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    versions = {
        "seed": seed,
        "command": sys.argv[1:],
        "commit": checkout_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "threads": torch.get_num_threads(),
        "packages": found,
    }
    path.write_text(json.dumps(versions, indent=1) + "\n", encoding="utf-8")


def checkout_commit() -> str | None:
    """The git commit of the checkout that this package runs from; None where it is installed."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
