"""The end of a run that several processes trained: saved once, and measured by one of them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from es2_lightning.backbone.adapters import save_adapter
from es2_lightning.config.earlier_run import ADAPTER, MODEL, read_run
from es2_lightning.config.evaluate_schema import EvaluateConfig
from es2_lightning.config.ranks import remember_group
from es2_lightning.evaluation.comparison import Comparison
from es2_lightning.evaluation_run import evaluate
from es2_lightning.training.whole_weights import whole_weights

if TYPE_CHECKING:
    from es2_lightning.config.train_schema import TrainConfig
    from es2_lightning.training_run import TrainingRun

log = logging.getLogger(__name__)
EVALUATION = "evaluation"


def save_whole(run: TrainingRun) -> None:
    """Assemble what was trained from all ranks, and write it on the first; collective."""
    model = run.chat_model.model
    weights = whole_weights(run.chat_model.model)
    if run.trainer.is_global_zero:
        if hasattr(model, "peft_config"):
            save_adapter(model, run.folder / ADAPTER, weights=weights)
        else:
            model.save_pretrained(run.folder / MODEL, state_dict=weights)
            run.chat_model.tokenizer.save_pretrained(run.folder / MODEL)
    run.trainer.strategy.barrier()


def measure_alone(run: TrainingRun, config: TrainConfig) -> Comparison | None:
    """Measure base and tuned model from what the run saved; the other ranks are through by then.

    Args:
        run: Its weights are given up.
        config: The run's.

    Returns:
        None on all ranks but the first, and where nothing is measured.
    """
    device, first = run.trainer.strategy.root_device, run.trainer.is_global_zero
    if dist.is_initialized():
        remember_group()
        dist.destroy_process_group()
    if not first or run.evaluator is None:
        return None
    log.info("The first of %d processes measures alone", run.trainer.world_size)
    run.release()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    alone: dict[str, Any] = {
        name: getattr(config, name)
        for name in (
            "model",
            "data",
            "attack_values",
            "attack",
            "judge",
            "capability",
            "evaluate",
            "progress",
        )
    }
    return evaluate(
        EvaluateConfig(**alone, device=str(device), seed=config.seed),
        run.folder / EVALUATION,
        run=read_run(run.folder),
    )
