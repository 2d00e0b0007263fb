"""A small command whose jobs are processes that compute something together, or fail in some way."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from es2_lightning.config import job
from es2_lightning.config.command import command
from es2_lightning.config.devices import processes_of
from es2_lightning.errors import UserError


@dataclass
class Together:
    trainer: dict[str, Any] = field(default_factory=dict)
    ckpt_path: str | None = None
    seed: int = 0
    note: str = ""
    fails: str = ""
    """How one of the processes fails."""
    at: int = 1
    """Which."""


log = logging.getLogger(__name__)


@command(
    "together",
    schema=Together,
    processes=lambda config: processes_of(config.trainer),
    conf=Path(os.environ["TOGETHER_CONF"]),
)
def main(config: Together) -> Any:
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    folder = job.output_dir()
    said = {
        "folder": str(folder),
        "sweep": str(job.sweep_dir()),
        "note": config.note,
        "pid": os.getpid(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "from": time.time(),
    }
    print("Printed by rank", rank)
    log.info("Logged by rank %d", rank)
    log.warning("Warned by rank %d", rank)
    total = _sum_of_ranks(rank, world) if world > 1 else 0
    if os.environ.get("UNLUCKY") == str(config.seed) and rank == world - 1:
        _fail("bug", folder)
    if (config.fails and rank == config.at % world) or config.fails in ("hang", "wait"):
        _fail(config.fails, folder)
    elif config.fails and world > 1:
        _sum_of_ranks(rank, world)  # For ever, if nobody ended it.
    if world > 1:
        _leave()
    (folder / f"rank_{rank}.json").write_text(json.dumps({**said, "until": time.time()}))
    return total


def _sum_of_ranks(rank: int, world: int) -> int:
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo", rank=rank, world_size=world)
    value = torch.tensor(rank)
    dist.all_reduce(value)
    return int(value)


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def _fail(how: str, folder: Path) -> None:
    if how == "mistake":
        raise UserError("seed 7 is unlucky")
    if how == "bug":
        raise RuntimeError("a bug\nin two lines")
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        sys.exit(3)
    if how == "wait":  # Until a signal that it knows comes.
        signal.signal(signal.SIGUSR1, lambda *_: (folder / f"usr1_{os.getpid()}").touch())
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
    (folder / f"ready_{os.getpid()}").touch()
    time.sleep(600)


if __name__ == "__main__":
    main()
