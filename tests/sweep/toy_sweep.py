"""A command that takes no time, with jobs that fail or are interrupted as they are told."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from es2_lightning.config import job
from es2_lightning.config.command import command
from es2_lightning.config.going_on import checkpoint_to_go_on_from
from es2_lightning.config.sweep_start import StartedSweep
from es2_lightning.errors import UserError

CONF = """\
defaults:
  - toy_sweep_schema
  - _self_
hydra:
  run: {dir: "${run_folder:${ckpt_path}}"}
  sweep: {dir: "${sweep_folder:${ckpt_path}}", subdir: "${hydra.job.num}"}
  callbacks:
    sweep_start: {_target_: es2_lightning.config.sweep_start.SweepStart}
"""
ENDED = "ended.txt"


@dataclass
class ToySweep:
    x: float = 0.0
    y: float = 0.0
    kind: str = "good"
    seed: int = 0
    checkpoints: str = "${hydra:runtime.output_dir}/checkpoints"
    ckpt_path: str | None = None
    objectives: list[str] = field(default_factory=lambda: ["x", "y"])


def tell(sweep: Path) -> None:
    with (sweep / "told.txt").open("a") as file:
        file.write(job.output_dir().name + "\n")


def end(started: StartedSweep | None) -> None:
    if started is not None:
        Path(ENDED).write_text(str(started.folder))


@command("toy_sweep", schema=ToySweep, after_job=tell, after_jobs=end, conf=Path(os.environ["TOY"]))
def main(config: ToySweep) -> tuple[float, ...] | None:
    folder = job.output_dir()
    checkpoint = checkpoint_to_go_on_from(config.ckpt_path)
    begins_at = None if checkpoint is None else checkpoint.stem
    with Path("ran.txt").open("a") as file:
        file.write(f"{folder.name} {config.x:g} {begins_at}\n")
    (folder / "config.yaml").touch()
    is_bad = Path("bad.txt").exists() and f"{config.x:g}" in Path("bad.txt").read_text().split()
    if is_bad:
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / "last.ckpt").touch()
        raise UserError(f"x={config.x:g} is bad\nand a second line")
    if config.kind == "interrupted" and not Path("calm.txt").exists():
        raise KeyboardInterrupt
    return (
        None if config.kind == "silent" else (config.x, float("nan") if config.y < 0 else config.y)
    )


if __name__ == "__main__":
    main()
