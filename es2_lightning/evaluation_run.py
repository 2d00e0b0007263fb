"""The objects of an evaluation, built from a config; `train` and `evaluate` share them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from es2_lightning.backbone.adapters import load_adapter
from es2_lightning.backbone.chat_model import ChatModel
from es2_lightning.backbone.devices import choose_device
from es2_lightning.backbone.fingerprint import weights_fingerprint
from es2_lightning.backbone.loading import load_chat_model
from es2_lightning.backbone.prompt_lengths import fit_to_length
from es2_lightning.backbone.reference import (
    AdapterReference,
    ModelReference,
    Reference,
    answers_differ,
)
from es2_lightning.backbone.settings import ModelSettings
from es2_lightning.config.evaluation_objects import build_attacks, build_capability, build_judges
from es2_lightning.config.loaded_prompts import load_prompts
from es2_lightning.errors import UserError
from es2_lightning.evaluation.comparison import Comparison, compare
from es2_lightning.evaluation.evaluator import Evaluator
from es2_lightning.evaluation.progress import Progress, progress_of, silent
from es2_lightning.evaluation.results_files import write_results
from es2_lightning.evaluation.settings import EvaluateSettings
from es2_lightning.evaluation.subject import Subject
from es2_lightning.prompts.prompt import PromptSplits

if TYPE_CHECKING:
    from es2_lightning.config.earlier_run import EarlierRun
    from es2_lightning.config.evaluate_schema import EvaluateConfig

log = logging.getLogger(__name__)
BASE, TUNED = "base", "tuned"


class EvaluationConfig(Protocol):
    """What the configs of both commands have."""

    attack: dict[str, Any]
    judge: dict[str, Any]
    capability: dict[str, Any]
    evaluate: EvaluateSettings
    seed: int


def build_evaluator(
    config: EvaluationConfig,
    splits: PromptSplits,
    folder: Path,
    *,
    progress: Progress = silent,
    earlier: Sequence[Path] = (),
) -> Evaluator:
    """What measures models; see `Evaluator`.

    Raises:
        UserError: A value is wrong, or a split lacks a class of prompts.
    """
    judges = build_judges(config.judge)
    judges.check()
    return Evaluator(
        attacks=build_attacks(config.attack),
        attack_settings=config.attack,
        judges=judges,
        splits=splits,
        settings=config.evaluate,
        folder=folder,
        capability=build_capability(config.capability),
        capability_settings=config.capability,
        seed=config.seed,
        progress=progress,
        earlier=earlier,
    )


def evaluate(config: EvaluateConfig, folder: Path, *, run: EarlierRun | None) -> Comparison:
    """Measure a model, or a model before and after tuning, and write the results.

    Args:
        config: What `run` brings is taken over already.
        folder: What is measured is kept in it, and the same call goes on from there.
        run: The training run whose models these are.

    Raises:
        UserError: A model, adapter, judge or prompt file cannot be used.
    """
    splits = load_prompts(config.data.source)
    chat_model = load_chat_model(config.model)
    splits = fit_to_length(splits, chat_model.renderer, too_long=config.data.too_long)  # type: ignore[arg-type]
    chat_model.model.to(choose_device(config.device))
    adapter = run.adapter if run else (Path(config.adapter) if config.adapter else None)
    if adapter is not None:
        # An adapter that does not fit is told before the base is measured for an hour.
        load_adapter(chat_model, adapter)
        chat_model.model = chat_model.model.unload()
    with progress_of(config.progress)() as progress:
        evaluator = build_evaluator(config, splits, folder, progress=progress)
        layers = (run.layers if run else None) or None
        subject = Subject(BASE, chat_model, weights_fingerprint(chat_model.model))
        base = evaluator.measure(subject, projection_layers=layers)
        tuned = None
        if adapter is not None or run is not None:
            subject = tuned_subject(chat_model, config.model, adapter, run)
            _warn_if_equal(subject, splits)
            tuned = evaluator.measure(subject, projection_layers=layers)
    comparison = compare(base, tuned)
    write_results(comparison, folder)
    return comparison


def tuned_subject(
    base: ChatModel, settings: ModelSettings, adapter: Path | None, run: EarlierRun | None
) -> Subject:
    """The tuned model beside its base, which gets the adapter where one was trained.

    Args:
        base: Loaded, without an adapter.
        settings: What it was loaded by.
        adapter: The adapter's folder; None: the run trained all weights.
        run: The training run.

    Raises:
        UserError: The tuned model does not belong to this base.
    """
    if adapter is not None:
        load_adapter(base, adapter)
        reference: Reference = AdapterReference(base)
        return Subject(TUNED, base, weights_fingerprint(base.model), reference)
    assert run is not None and run.full_model is not None
    tuned = load_chat_model(settings, folder=run.full_model)
    tokens = [chat_model.model.config.get_text_config().vocab_size for chat_model in (base, tuned)]
    if tokens[0] != tokens[1]:
        raise UserError(
            f"run={run.folder}: its tuned model knows {tokens[1]} tokens, but "
            f"{settings.name_or_path} {tokens[0]}, so it was not tuned from that. Accepted: "
            f"the run's own base, {run.model.name_or_path}."
        )
    tuned.model.to(base.device)
    return Subject(TUNED, tuned, weights_fingerprint(tuned.model), ModelReference(base))


def _warn_if_equal(subject: Subject, splits: PromptSplits) -> None:
    assert subject.reference is not None
    prompt = splits.test.prompts[0]
    if not answers_differ(subject.chat_model, subject.reference, prompt):
        # lm-eval #2432: an adapter that is silently ignored gives the base model's scores.
        log.warning(
            "The tuned model's logits are the base model's: the adapter has no effect. What "
            "follows compares the base model with itself."
        )
