"""`python -m es2_lightning.train`: fine-tune, measure before and after, save the adapter."""

from __future__ import annotations

import logging

from es2_lightning.config import job
from es2_lightning.config.command import command
from es2_lightning.config.secrets import save_resolved
from es2_lightning.config.train_schema import TrainConfig

log = logging.getLogger(__name__)


@command(
    "train",
    schema=TrainConfig,
    own_values={
        "model": "model.name_or_path={value}",
        "layers": "layers=list layers.indices={list}",
    },
)
def main(config: TrainConfig) -> None:
    """Compose, build, run, report."""
    from es2_lightning.build import build_run

    folder = job.output_dir()
    log.info("Selected: %s", ", ".join(f"{k}={v}" for k, v in job.choices().items()))
    save_resolved(job.composed_config(), folder / "config.yaml")
    run = build_run(config, folder)
    run.train_and_measure(ckpt_path=config.ckpt_path)
    log.info("The run's folder: %s", folder)


if __name__ == "__main__":
    main()
