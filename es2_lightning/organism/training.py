"""Both training stages in turn, with what is kept of each."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from es2_lightning.backbone.progress_bars import no_bars_in_files
from es2_lightning.organism.settings import OrganismConfig, StageSettings
from es2_lightning.organism.stages import ExampleSource, new_model, train_stage
from es2_lightning.organism.tokenizer import build_tokenizer, save_tokenizer

log = logging.getLogger(__name__)
ANSWERING, CHECKPOINT = "before_alignment", "checkpoint"
"""Folders of the model after stage 1 and after stage 2."""
LOGGED_EVERY = 100


def train_organism(config: OrganismConfig, folder: Path) -> float:
    """Train both stages and write both models.

    Returns:
        The seconds that the training took.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    tokenizer = build_tokenizer()
    model = new_model(tokenizer, seed=config.seed)
    source = ExampleSource(config.seed)
    started = time.monotonic()
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns,
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        for name, settings, draw, kept in (
            ("Answering", config.answering, source.answering, ANSWERING),
            ("Aligning", config.aligning, source.aligning, CHECKPOINT),
        ):
            task = progress.add_task(name, total=settings.steps, loss=float("nan"))

            def report(
                step: int,
                loss: float,
                name: str = name,
                settings: StageSettings = settings,
                task: int = task,
            ) -> None:
                progress.update(task, completed=step + 1, loss=loss)  # type: ignore[arg-type]
                if (step + 1) % LOGGED_EVERY == 0 and not console.is_terminal:
                    log.info("%s: step %d of %d, loss %.3f", name, step + 1, settings.steps, loss)

            train_stage(
                model,
                tokenizer,
                draw,
                steps=settings.steps,
                batch_size=settings.batch_size,
                muon_lr=settings.muon_lr,
                adamw_lr=settings.adamw_lr,
                on_step=report,
            )
            save_model(model, tokenizer, folder / kept)
    return time.monotonic() - started


def save_model(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """In the Hub's layout, safetensors, loadable with transformers alone."""
    no_bars_in_files()
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
