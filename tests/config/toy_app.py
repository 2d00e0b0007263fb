"""A small command with every kind of node: typed, free-form, chosen by group."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import MISSING

from es2_lightning.config import job
from es2_lightning.config.command import command
from es2_lightning.config.secrets import save_resolved
from es2_lightning.errors import UserError
from es2_lightning.ranges import accepts, at_least, one_of


@dataclass
class Model:
    name_or_path: str = MISSING
    max_length: int = 8


@dataclass
class Loss:
    kl_weight: float = field(default=1.0, metadata=at_least(0))
    unit: str = field(default="base_norm", metadata=one_of("base_norm", "raw"))
    threshold: Any = field(default=0.1, metadata=accepts("a number > 0", lambda v: v > 0))


@dataclass
class Layers:
    select: str = "all"
    indices: list[int] = field(default_factory=list)
    emergence: int | None = None


@dataclass
class Optimizer:
    lr: float = 1e-6


@dataclass
class Toy:
    model: Model = field(default_factory=Model)
    data: Any = MISSING
    layers: Layers = field(default_factory=Layers)
    loss: Loss = field(default_factory=Loss)
    optimizer: Optimizer = field(default_factory=Optimizer)
    logger: Any = None
    seed: int = 0
    ckpt_path: str | None = None
    note: str = ""


OWN_VALUES = {
    "model": "model=hf model.name_or_path={value}",
    "layers": "layers=list layers.indices={list}",
}


def check(config: Toy) -> None:
    if config.loss.unit == "raw" and config.loss.kl_weight == 0:
        raise UserError("loss.kl_weight=0 is not accepted with loss.unit=raw. Accepted: > 0.")


@command("toy", schema=Toy, check=check, own_values=OWN_VALUES, conf=Path(os.environ["TOY_CONF"]))
def main(config: Toy) -> None:
    assert isinstance(config, Toy) and isinstance(config.loss, Loss)
    print(f"data={config.data} kl_weight={config.loss.kl_weight} lr={config.optimizer.lr}")
    print(f"choices={job.choices()} seed={config.seed}")
    if HydraConfig.get().mode == RunMode.RUN:
        # Lightning's launcher reads it again for the other ranks.
        assert Path(HydraConfig.get().run.dir).absolute() == job.output_dir()
    if config.seed == 7:
        raise UserError("seed 7 is unlucky")
    if config.seed == 8:
        raise RuntimeError("a bug")
    if config.seed == 9:
        raise KeyboardInterrupt
    save_resolved(job.composed_config(), job.output_dir() / "config.yaml")


if __name__ == "__main__":
    main()
