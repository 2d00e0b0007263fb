"""The objects of one training run, built from its config, and the steps of a run."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.seed import isolate_rng

from es2_lightning.atomic_files import write_atomically
from es2_lightning.backbone.adapters import save_adapter
from es2_lightning.backbone.fingerprint import weights_fingerprint
from es2_lightning.backbone.head import check_head
from es2_lightning.backbone.kept_model import KeptModel, model_key
from es2_lightning.backbone.loading import make_trainable, read_depth
from es2_lightning.backbone.model_identity import model_identity
from es2_lightning.backbone.packing_choice import choose_packing
from es2_lightning.backbone.reference import Reference, answers_differ
from es2_lightning.config.earlier_run import LAYERS
from es2_lightning.config.objects import build, build_optimizer
from es2_lightning.evaluation.comparison import Comparison, compare
from es2_lightning.evaluation.evaluator import Evaluator
from es2_lightning.evaluation.progress import progress_of
from es2_lightning.evaluation.results_files import write_results
from es2_lightning.evaluation.subject import Subject
from es2_lightning.evaluation_run import BASE, build_evaluator
from es2_lightning.sweep import JobSeconds, Sweep
from es2_lightning.training.cache_build import CacheBuild
from es2_lightning.training.checkpoints import read_checkpoint
from es2_lightning.training.datamodule import PromptDataModule
from es2_lightning.training.emergence import find_emergence_layer
from es2_lightning.training.fitting import fit
from es2_lightning.training.layer_sets import select_layers, with_terminal
from es2_lightning.training.run_metrics import RunMetrics
from es2_lightning.training.samples import Samples
from es2_lightning.training.step_setup import set_up_step
from es2_lightning.training.trainer import make_trainer
from es2_lightning.training_estimate import estimate_run
from es2_lightning.training_parts import (
    build_method,
    give_refusals,
    method_class,
    read_data,
    run_reference,
    takes,
    tell_estimate,
)

if TYPE_CHECKING:
    from es2_lightning.backbone.chat_model import ChatModel
    from es2_lightning.config.train_schema import TrainConfig
    from es2_lightning.evaluation.measurement import Measurement
    from es2_lightning.training.staged_module import StagedModule

log = logging.getLogger(__name__)
EVALUATION = "evaluation"
STAGES = "stages.json"


@dataclass
class TrainingRun:
    """What a run is made of.

    Attributes:
        layers: The layer set, whose states are shown.
        separated: Those of them that the method works on; none where it works on outputs.
        evaluator: What is measured before and after; None: nothing.
        seconds: What took how long.
        progress: How measuring is shown: `progress=…`.
    """

    folder: Path
    chat_model: ChatModel
    reference: Reference
    datamodule: PromptDataModule
    module: StagedModule
    trainer: L.Trainer
    metrics: RunMetrics
    layers: list[int]
    separated: list[int]
    evaluator: Evaluator | None
    seconds: JobSeconds
    progress: str

    @property
    def shared(self) -> bool:
        """Whether several processes train."""
        return self.trainer.world_size > 1

    def measure(self, name: str) -> Measurement | None:
        """Measure the model as it is now, on test prompts."""
        if self.evaluator is None:
            return None
        log.info("Measuring the %s model", name)
        # Lightning leaves the model on the CPU after `fit`.
        self.chat_model.model.to(self.trainer.strategy.root_device)
        tuned = name != BASE
        subject = Subject(
            label=name,
            chat_model=self.chat_model,
            # A fresh adapter changes nothing, so the base's fingerprint leaves it out.
            fingerprint=weights_fingerprint(self.chat_model.model, adapter=tuned),
            reference=self.reference if tuned else None,
        )
        # What is measured, and what is taken over, must not change what training draws.
        timed = nullcontext() if tuned else self.seconds.timed("base")
        with progress_of(self.progress)() as progress, isolate_rng(), timed:
            self.evaluator.progress = progress
            return self.evaluator.measure(subject, projection_layers=self.layers)

    def check(self, ckpt_path: Path) -> None:
        """Refuse a checkpoint that the run cannot go on from, before anything takes long.

        Raises:
            UserError: It is of another model, tokenizer, adapter or layer set, or it is none.
        """
        checkpoint = read_checkpoint(ckpt_path)
        self.module.check_checkpoint(checkpoint)
        log.info("Going on after %d optimizer steps: %s", checkpoint["global_step"], ckpt_path)

    def train(self, *, ckpt_path: Path | None) -> None:
        """Run the stages, from the start or from a checkpoint."""
        fit(self.trainer, self.module, self.datamodule, ckpt_path=ckpt_path)
        if self.trainer.is_global_zero and self.module.schedule is not None:
            ends = [asdict(end) for end in self.module.schedule.ends]
            write_atomically(self.folder / STAGES, json.dumps(ends, indent=1) + "\n")
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, CacheBuild) and callback.cost is not None:
                self.seconds.cache += callback.cost.seconds
        if self.shared:
            return
        if not answers_differ(
            self.chat_model, self.reference, self.datamodule.splits.test.prompts[0]
        ):
            # lm-eval #2432: an adapter that is silently ignored gives the base model's scores.
            log.warning(
                "The tuned model's logits are the base model's: no step was applied, or the "
                "adapter has no effect. What follows compares the base model with itself."
            )

    def save_adapter(self) -> None:
        """Write what was trained: the adapter in peft's format, or the whole model."""
        model = self.chat_model.model
        if hasattr(model, "peft_config"):
            save_adapter(model, self.folder / "adapter")
        else:
            model.save_pretrained(self.folder / "model")
            self.chat_model.tokenizer.save_pretrained(self.folder / "model")

    def compare(self, base: Measurement | None, tuned: Measurement | None) -> Comparison | None:
        """Lay both measurements side by side, and write them at once."""
        if base is None or tuned is None:
            return None
        comparison = compare(base, tuned)
        write_results(comparison, self.folder / EVALUATION)
        return comparison

    def release(self) -> None:
        """Give up the weights: those of the model, its reference and the optimizer."""
        self.module.zero_grad()
        self.trainer.strategy.optimizers = []
        del self.chat_model, self.reference, self.module


def build_run(
    config: TrainConfig,
    folder: Path,
    *,
    loggers: Sequence[Logger] = (),
    sweep: Sweep | None = None,
) -> TrainingRun:
    """Build everything; what needs no weights is built before they load.

    Args:
        config: The whole config.
        folder: The run's.
        loggers: Beside `RunMetrics`.
        sweep: That it is a job of, from whose other jobs it takes what is the same.
    """
    seconds = JobSeconds()
    sweep = sweep or Sweep(folder, model=KeptModel(keeps=False))
    L.seed_everything(config.seed, verbose=False)
    depth = read_depth(config.model)
    layers = select_layers(config.layers, depth)
    datamodule = read_data(config, folder)
    metrics = RunMetrics(folder)
    trainer = make_trainer(
        config.trainer,
        folder=folder,
        loggers=[metrics, *loggers],
        callbacks=[build(c, f"callbacks.{name}") for name, c in config.callbacks.items()],
    )

    device = trainer.strategy.root_device
    method = method_class(config)
    if method.estimated:
        tell_estimate(
            estimate_run(config, datamodule, device, already_there=sweep.model.nbytes(device))
        )
    with seconds.timed("loading"):
        chat_model = sweep.model.load(config.model, device=device)
    if layers is None:
        threshold = config.layers.threshold
        splits = datamodule.splits
        with seconds.timed("finding"):
            emergence = sweep.once(
                ("emergence", model_key(config.model), splits, threshold, config.seed),
                lambda: find_emergence_layer(
                    chat_model, splits, threshold=threshold, seed=config.seed
                ),
            )
        layers = with_terminal(emergence, depth)
    log.info("%s: %s of %d", method.calls_layers, ", ".join(map(str, layers)), depth)
    separated = layers if takes(method, "layers") else []
    write_atomically(folder / LAYERS, json.dumps({"separated": separated, "depth": depth}))
    # Whatever was drawn until here, or was not since it was there: the adapter is the seed's.
    L.seed_everything(config.seed, verbose=False)
    make_trainable(chat_model, config.model)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Samples):
            callback.connect(chat_model)
    some = datamodule.some_rows()
    check_head(chat_model.model, some[0].token_ids)
    packing = choose_packing(chat_model.model, config.step.packing, some)
    reference = run_reference(config, chat_model, packing, trainer)
    set_up_step(chat_model.model, config.step, packing=packing)
    if method.compares_outputs and config.loss.harmful_kl_weight > 0:
        with seconds.timed("finding"):
            give_refusals(datamodule, reference, config, sweep)
    module = build_method(
        config,
        chat_model=chat_model,
        reference=reference,
        layers=layers,
        loss=config.loss,
        schedule=config.schedule,
        optimizer=build_optimizer(config.optimizer),
        terminal_state=config.layers.terminal_state,
        step=config.step,
        packing=packing,
        identity=model_identity(chat_model),
    )
    evaluator = None
    if config.evaluate.enabled:
        results = folder / EVALUATION
        evaluator = build_evaluator(config, datamodule.splits, results, earlier=sweep.evaluations)
        sweep.evaluations.append(results)
    return TrainingRun(
        folder,
        chat_model,
        reference,
        datamodule,
        module,
        trainer,
        metrics,
        layers,
        separated,
        evaluator,
        seconds,
        config.progress,
    )
