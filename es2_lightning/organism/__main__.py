"""`python -m es2_lightning.organism seed=…`: train the built-in model organism, and measure it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from es2_lightning.atomic_files import write_atomically
from es2_lightning.config import job
from es2_lightning.config.command import command
from es2_lightning.config.secrets import save_resolved
from es2_lightning.organism.settings import OrganismConfig

log = logging.getLogger(__name__)


@command("organism", schema=OrganismConfig)
def main(config: OrganismConfig) -> None:
    """Train, measure and show; or write the card of what was measured."""
    if config.card:
        _write_card([Path(folder) for folder in config.card])
        return
    import torch
    from rich.console import Console

    from es2_lightning.evaluation.progress import rich_progress
    from es2_lightning.organism.card import FIGURES, figures_table
    from es2_lightning.organism.figures import measure_figures
    from es2_lightning.organism.training import ANSWERING, CHECKPOINT, train_organism

    folder = job.output_dir()
    save_resolved(job.composed_config(), folder / "config.yaml")
    seconds = train_organism(config, folder)
    log.info("Trained in %.0f s; the checkpoint: %s", seconds, folder / CHECKPOINT)
    if not config.measure:
        return
    with rich_progress() as progress:
        figures = measure_figures(
            folder / CHECKPOINT,
            folder / ANSWERING,
            prompts_per_kind=config.prompts_per_kind,
            progress=progress,
        )
    figures |= {
        "seed": config.seed,
        "steps": [config.answering.steps, config.aligning.steps],
        "seconds": seconds,
        "threads": torch.get_num_threads(),
    }
    write_atomically(folder / FIGURES, json.dumps(figures, indent=1) + "\n")
    Console().print(figures_table(figures))
    log.info("The figures: %s", folder / FIGURES)


def _write_card(folders: list[Path]) -> None:
    from es2_lightning.organism.card import card, read_figures
    from es2_lightning.organism.training import CHECKPOINT

    text = card([read_figures(folder) for folder in folders])
    path = folders[0] / CHECKPOINT / "README.md"
    write_atomically(path, text)
    log.info("The card: %s", path)


if __name__ == "__main__":
    main()
