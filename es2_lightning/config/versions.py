"""What a run was made with: enough to make it again."""

from __future__ import annotations

import json
import platform
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
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "threads": torch.get_num_threads(),
        "packages": found,
    }
    path.write_text(json.dumps(versions, indent=1) + "\n", encoding="utf-8")
