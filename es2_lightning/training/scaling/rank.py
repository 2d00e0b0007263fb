"""One process of a measured step; torch.distributed.run starts it.

python -m torch.distributed.run --standalone --nproc-per-node=2 -m es2_lightning.training.scaling.rank WHAT.json FOLDER
"""  # noqa: E501

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from es2_lightning.backbone.settings import LoraSettings
from es2_lightning.training.cost.named_shapes import to_config
from es2_lightning.training.cost.shapes import ModelShape
from es2_lightning.training.scaling.collectives import CountCollectives
from es2_lightning.training.settings import StepSettings
from es2_lightning.training.sharding import shard
from es2_lightning.training.step_benchmark.lengths import (
    BatchLengths,
    built_in_lengths,
    random_batch,
)
from es2_lightning.training.step_benchmark.subject import random_model, tune
from es2_lightning.training.step_benchmark.ways import configured_way
from es2_lightning.training.step_benchmark.workbench import Workbench


@dataclass(frozen=True, kw_only=True)
class RankWork:
    """What all processes are told.

    Attributes:
        strategy: `ddp` or `fsdp`.
        shape: A `ModelShape`; weights in float32.
        reference: `cached` or `adapter`.
        hold: What a cached reference holds.
        lora: `LoraSettings`.
        step: `StepSettings`.
        harmless: Prompts of all processes together.
        harmful: The same.
        layer: That is separated.
        steps: How many are timed.
        threads: CPU threads of each process.
        seed: Of weights and tokens.
    """

    strategy: str
    shape: dict[str, Any]
    reference: str
    hold: str
    lora: dict[str, Any]
    step: dict[str, Any]
    harmless: int
    harmful: int
    layer: int
    steps: int
    threads: int
    seed: int

    @property
    def lengths(self) -> BatchLengths:
        """Of the batch of all processes."""
        return built_in_lengths(harmless=self.harmless, harmful=self.harmful)

    def share(self, rank: int, size: int) -> BatchLengths:
        """Of one process."""
        whole = self.lengths
        return BatchLengths(
            whole.harmless[rank::size], whole.harmful[rank::size], whole.prefix, whole.source
        )


def measure(work: RankWork) -> dict[str, Any]:
    """Time the steps of this process, and count what it sends; collective."""
    torch.set_num_threads(work.threads)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    objective = _objective(work, rank, size)
    alone = _timed(_step(objective, objective), work.steps)
    dist.init_process_group("gloo")
    together = _step(objective, _shared(objective, work.strategy, size))
    seconds = _timed(together, work.steps, before=dist.barrier)
    with CountCollectives() as counted:
        together()
    # Kept beyond its end: gloo's last thread that frees it would wait for the interpreter, which
    # waits for that thread, where a dispatch mode (the count) was on while it was used.
    group = dist.group.WORLD
    dist.destroy_process_group()
    # A second model, since the first one is cut into parts; after the steps as before them, so that
    # what else the machine does meanwhile weighs the same on both.
    del objective, together
    objective = _objective(work, rank, size)
    again = _timed(_step(objective, objective), work.steps)
    del group
    return {"seconds": seconds, "alone_seconds": [*alone, *again], "bytes": dict(counted.bytes)}


class _Batched(nn.Module):
    """An objective with its batch: what a strategy wraps is called without tensors."""

    def __init__(self, objective: Any, batch: Any, layer: int) -> None:
        super().__init__()
        self.objective = objective
        self.batch, self.layer = batch, layer

    def forward(self) -> torch.Tensor:
        loss: torch.Tensor = self.objective(self.batch, [self.layer]).loss
        return loss


def _objective(work: RankWork, rank: int, size: int) -> _Batched:
    config = to_config(ModelShape(**work.shape))
    chat_model = random_model(
        config, torch.device("cpu"), dtype="float32", attn_implementation=None, seed=work.seed
    )
    tune(chat_model, LoraSettings(**work.lora), seed=work.seed)
    batch = random_batch(
        work.share(rank, size),
        vocab_size=config.vocab_size,
        kl_positions="all",
        seed=work.seed + rank,
    )
    bench = Workbench(chat_model, batch, layer=work.layer, kl_positions="all")
    way = configured_way(StepSettings(**work.step), work.reference, work.hold)
    return _Batched(bench.objective(way), batch, work.layer)


def _shared(batched: _Batched, strategy: str, size: int) -> nn.Module:
    if strategy == "ddp":
        return nn.parallel.DistributedDataParallel(batched)
    mesh = dist.device_mesh.init_device_mesh("cpu", (size,), mesh_dim_names=("data_parallel",))
    shard(batched.objective, batched.objective.model, mesh, offload=False)
    return batched


def _step(batched: _Batched, called: nn.Module) -> Callable[[], None]:
    optimizer = torch.optim.AdamW([p for p in batched.parameters() if p.requires_grad], lr=1e-6)

    def step() -> None:
        called().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _timed(
    step: Callable[[], None], steps: int, *, before: Callable[[], Any] = lambda: None
) -> list[float]:
    step()
    seconds = []
    for _ in range(steps):
        before()
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    figures = measure(RankWork(**json.loads(Path(sys.argv[1]).read_text())))
    (Path(sys.argv[2]) / f"rank{os.environ['RANK']}.json").write_text(json.dumps(figures))
