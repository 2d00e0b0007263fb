"""Checkpoints that are written as a whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import TorchCheckpointIO

from es2_lightning.atomic_files import TEMPORARY, replacing


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's, but a process that is killed while it writes leaves the previous file.

    Lightning's own writes into the file's place.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write beside the file, to the disk, and put it in the file's place.

        Args:
            checkpoint: What to write.
            path: Where.
            storage_options: None: local files have none.
        """
        if storage_options is not None:
            raise TypeError("storage_options: a checkpoint is written to a local folder")
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # What processes left that were killed here: nobody else writes this file now.
        for left in path.parent.glob(f".{path.name}.*{TEMPORARY}"):
            left.unlink(missing_ok=True)
        with replacing(path) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read plain values and tensors alone, whatever Lightning asks for: it can hold no code."""
        return super().load_checkpoint(path, map_location, weights_only=True)
