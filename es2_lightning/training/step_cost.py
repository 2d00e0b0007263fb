"""What a training step costs here: tokens a second, and in the run's last lines seconds, memory."""

from __future__ import annotations

import json
import logging
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch

from es2_lightning.logged_keys import TOKENS_PER_SECOND

log = logging.getLogger(__name__)
FILE = "cost.json"
GIB = 2**30


class StepCost(L.Callback):
    """Measures optimizer steps, with all the batches that each accumulates.

    Logs each step's tokens a second, and writes `cost.json` at the end.

    Seconds are the median over the steps but the first, which warms up; peak memory is what torch
    allocated on the GPU while it trained, and on a CPU the most that the process ever held.
    """

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._began = 0.0
        self._tokens = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count."""
        self._seconds = []
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        self._began = self._now(pl_module)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count a batch's tokens, and a step where the batch ended one."""
        self._tokens += sum(len(row.token_ids) for row in getattr(batch, "rows", ()))
        if trainer.fit_loop._should_accumulate():
            return
        now = self._now(pl_module)
        self._seconds.append(now - self._began)
        if self._tokens:
            rate = torch.tensor(self._tokens / self._seconds[-1], device=pl_module.device)
            # Ranks take their steps together, each with its own share of the batch.
            pl_module.log(TOKENS_PER_SECOND, trainer.strategy.reduce(rate, reduce_op="sum"))
        self._tokens, self._began = 0, now

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validation is no part of a step."""
        self._began = self._now(pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write what it cost."""
        if not self._seconds or not trainer.is_global_zero:
            return
        device = pl_module.device
        cost = {
            "seconds_per_step": statistics.median(self._seconds[1:] or self._seconds),
            "steps": len(self._seconds),
            "peak_memory_gib": self._peak_bytes(device) / GIB,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        }
        (Path(trainer.default_root_dir) / FILE).write_text(json.dumps(cost, indent=2) + "\n")
        log.info(
            "%.3g s a step (%d steps), at most %.3g GiB on %s",
            *(cost["seconds_per_step"], cost["steps"], cost["peak_memory_gib"], cost["device"]),
        )

    @staticmethod
    def _now(pl_module: L.LightningModule) -> float:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        return time.perf_counter()

    @staticmethod
    def _peak_bytes(device: torch.device) -> int:
        if device.type == "cuda":
            return torch.cuda.max_memory_allocated(device)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
