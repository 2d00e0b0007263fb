"""One rank of tiny runs, one after the other; started by torchrun: see test_ranks.py.

torchrun --nproc-per-node=2 -m tests.training.rank_run <what>.json <results>.pt
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.distributed.tensor import DTensor

from es2_lightning.config.ranks import leave_group
from es2_lightning.training.samples import Samples
from es2_lightning.training.settings import LossSettings, ScheduleSettings, StepSettings
from es2_lightning.training.sharding import ShardedStrategy
from es2_lightning.training.validation_probes import ValidationProbes

from ..tiny_models import tiny_splits
from .tiny_methods import CircuitBreakersRun, STLRun
from .tiny_runs import Record, TinyRun, every_step

METHODS = {"es2": TinyRun, "stl": STLRun, "circuit_breakers": CircuitBreakersRun}


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


class WholeRecord(Record):
    """Gradients and parameters assembled from their shards."""

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.gradients.append(
            {n: whole(p.grad) for n, p in pl_module.named_parameters() if p.grad is not None}
        )

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        """Averaged over ranks only before the step."""


def run(what: dict[str, Any]) -> dict[str, Any]:
    """Train as `what` says; the results of rank 0."""
    what = dict(what)
    strategy, devices = what.pop("strategy"), what.pop("devices")
    trainer = what.pop("trainer", {})
    checkpoints, ckpt_path = what.pop("checkpoints", None), what.pop("ckpt_path", None)
    tiny = METHODS[what.pop("method", "es2")](
        splits=tiny_splits(what.pop("prompts", 12)),
        loss=LossSettings(**what.pop("loss", {})),
        schedule=ScheduleSettings(**what.pop("schedule")),
        step=StepSettings(**what.pop("step", {})),
        **what,
    )
    record = WholeRecord()
    chosen = ShardedStrategy() if strategy == "fsdp" else strategy
    samples, folder = Samples(prompts_per_kind=1, max_new_tokens=6), tempfile.mkdtemp()
    assert tiny.chat_model is not None
    samples.connect(tiny.chat_model)
    callbacks: list[L.Callback] = [record, ValidationProbes(), samples]
    callbacks += [] if checkpoints is None else [every_step(Path(checkpoints))]
    torch.manual_seed(3 if ckpt_path is None else 4)
    words = {"strategy": chosen, "devices": devices, "default_root_dir": folder, **trainer}
    fitted = tiny.fit(*callbacks, ckpt_path=ckpt_path, **words)
    written = Path(folder) / "samples.jsonl"
    return {
        "losses": record.losses,
        "gradients": record.gradients,
        "ends": tiny.ends,
        "parameters": {n: whole(p) for n, p in tiny.module.named_parameters() if p.requires_grad},
        "metrics": {k: float(v) for k, v in fitted.callback_metrics.items()},
        "samples": written.read_text() if fitted.global_rank == 0 else "",
        "rank": fitted.global_rank,
    }


if __name__ == "__main__":
    found = [run(what) for what in json.loads(Path(sys.argv[1]).read_text())]
    if found[0]["rank"] == 0:
        torch.save(found, sys.argv[2])
    leave_group(0)
