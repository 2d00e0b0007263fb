"""Parts of a training run, each built from its config."""

from __future__ import annotations

import inspect
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
from hydra.utils import get_class

from es2_lightning.backbone.kept_model import model_key
from es2_lightning.backbone.loading import read_renderer
from es2_lightning.backbone.reference import Reference, make_reference
from es2_lightning.backbone.reference_cache import make_cached_reference
from es2_lightning.config.evaluation_objects import build_judges
from es2_lightning.config.loaded_prompts import load_prompts
from es2_lightning.evaluation.judges.judge import outcome_of
from es2_lightning.evaluation.outcomes import Outcome
from es2_lightning.evaluation.progress import progress_of
from es2_lightning.reports.estimate_report import estimate_lines, shortage
from es2_lightning.training.cache_build import CacheBuild
from es2_lightning.training.refusals import MAX_NEW_TOKENS, collect_refusals

if TYPE_CHECKING:
    from es2_lightning.backbone.chat_model import ChatModel
    from es2_lightning.backbone.layouts import Packing
    from es2_lightning.config.train_schema import TrainConfig
    from es2_lightning.sweep import Sweep
    from es2_lightning.training.cost.run_estimate import RunEstimate
    from es2_lightning.training.datamodule import PromptDataModule
    from es2_lightning.training.staged_module import StagedModule

log = logging.getLogger(__name__)


def method_class(config: TrainConfig) -> type[StagedModule]:
    """The class that `method=…` names."""
    found: type[StagedModule] = get_class(config.method["_target_"])
    return found


def takes(method: type[StagedModule], word: str) -> bool:
    """Whether a method's constructor names a word."""
    return word in inspect.signature(method).parameters


def build_method(config: TrainConfig, **given: Any) -> StagedModule:
    """The method, from what it takes of what a run gives and from its own words.

    Args:
        config: The whole config.
        given: `GIVEN_TO_METHODS`.

    Raises:
        UserError: A value of its own is not accepted.
    """
    method = method_class(config)
    taken = {word: value for word, value in given.items() if takes(method, word)}
    own = {word: value for word, value in config.method.items() if word != "_target_"}
    return method(**taken, **own)


def read_data(config: TrainConfig, folder: Path | None = None) -> PromptDataModule:
    """The prompts as tokens; no weights are read.

    Args:
        config: The whole config.
        folder: Where `prompts.json` is written, if anywhere.

    Raises:
        UserError: They cannot be read, or a class has none that is short enough.
    """
    datamodule = method_class(config).data(
        load_prompts(config.data.source, folder),
        harmless_per_batch=config.data.harmless_per_batch,
        harmful_per_batch=config.data.harmful_per_batch,
        use_responses=config.data.use_responses,
        seed=config.seed,
        too_long=config.data.too_long,  # type: ignore[arg-type]
    )
    renderer = read_renderer(config.model)
    datamodule.connect(renderer, kl_positions=config.loss.kl_positions)  # type: ignore[arg-type]
    return datamodule


def tell_estimate(estimate: RunEstimate) -> None:
    """Log what a run will take, and warn where it will not fit."""
    for line in estimate_lines(estimate):
        log.info(line)
    for sentence in shortage(estimate):
        log.warning(sentence)


def run_reference(
    config: TrainConfig, chat_model: ChatModel, packing: Packing, trainer: L.Trainer
) -> Reference:
    """The frozen reference; one that is cached is filled when the trainer begins."""
    if config.model.reference != "cached":
        return make_reference(config.model.reference, chat_model, packing=packing)
    if not method_class(config).compares_outputs:
        # Nothing that could be held asks for it.
        kind = "copy" if config.model.mode == "full" else "adapter"
        return make_reference(kind, chat_model, packing=packing)
    cached = make_cached_reference(
        chat_model, config.model, packing=packing, precision=str(trainer.precision)
    )
    shown = CacheBuild(cached, progress=progress_of(config.progress))
    trainer.callbacks.append(shown)  # type: ignore[attr-defined]
    return cached


def give_refusals(
    datamodule: PromptDataModule, reference: Reference, config: TrainConfig, sweep: Sweep
) -> None:
    """Let the reference answer the harmful training prompts, and keep what is a refusal."""
    harmful = datamodule.splits.train.harmful
    judge = build_judges(config.judge).attacker
    judged_by = json.dumps(config.judge, sort_keys=True, default=str)
    refusals = sweep.once(
        ("refusals", model_key(config.model), harmful, judged_by),
        lambda: collect_refusals(
            reference,
            harmful,
            lambda prompt, output: outcome_of(judge, prompt, output) is Outcome.REFUSED,
            max_new_tokens=MAX_NEW_TOKENS,
        ),
    )
    log.info(
        "The reference refuses %d of %d harmful training prompts; the KL keeps these refusals, and "
        "what is no refusal is left out",
        len(refusals),
        len(harmful),
    )
    datamodule.use_refusals(refusals)
