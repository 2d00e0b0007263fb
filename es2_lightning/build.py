"""From a training config to the objects of a run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from hydra.utils import get_class, instantiate

from es2_lightning.backbone.adapters import add_lora, save_adapter
from es2_lightning.backbone.chat_model import ChatModel, load_config
from es2_lightning.backbone.probing import emergence_layer, probe_accuracy_by_layer
from es2_lightning.backbone.reference import Reference, make_reference
from es2_lightning.backbone.structure import num_layers
from es2_lightning.config.train_schema import TrainConfig
from es2_lightning.evaluation.comparison import compare
from es2_lightning.evaluation.outcomes import Outcome
from es2_lightning.evaluation.progress import rich_progress
from es2_lightning.evaluation.results_files import write_results
from es2_lightning.evaluation.verdict import verdict
from es2_lightning.prompts.prompt import PromptSplits
from es2_lightning.training.datamodule import PromptDataModule
from es2_lightning.training.layer_sets import select_layers, with_terminal
from es2_lightning.training.refusals import collect_refusals

log = logging.getLogger(__name__)


@dataclass
class Run:
    """What a training run is made of."""

    chat_model: ChatModel
    datamodule: PromptDataModule
    module: Any
    trainer: L.Trainer
    measurer: Any
    folder: Path
    layers: list[int]

    def train_and_measure(self, *, ckpt_path: str | None) -> None:
        """Measure, fine-tune, save the adapter, measure again, compare."""
        base = self._measure("base")
        if ckpt_path == "last":
            ckpt_path = str(self.folder / "checkpoints" / "last.ckpt")
        self.trainer.fit(
            self.module, datamodule=self.datamodule, ckpt_path=ckpt_path, weights_only=True
        )
        save_adapter(self.chat_model.model, self.folder / "adapter")
        comparison = compare(base, self._measure("tuned"))
        write_results(comparison, self.folder / "evaluation")
        for sentence in verdict(comparison):
            log.info(sentence)

    def _measure(self, name: str) -> Any:
        with rich_progress() as progress:
            return self.measurer.measure(
                self.chat_model,
                self.datamodule.splits,
                model=name,
                projection_layers=self.layers,
                progress=progress,
            )


def build_run(config: TrainConfig, folder: Path) -> Run:
    """Build everything; what can be wrong with the config is found before weights load."""
    L.seed_everything(config.seed, verbose=False)
    model = config.model
    depth = num_layers(
        load_config(
            model.name_or_path,
            revision=model.revision,
            trust_remote_code=model.trust_remote_code,
        )
    )
    layers = select_layers(config.layers, depth)
    splits: PromptSplits = instantiate(config.data.source).load()
    datamodule = PromptDataModule(
        splits,
        harmless_per_batch=config.data.harmless_per_batch,
        harmful_per_batch=config.data.harmful_per_batch,
        use_responses=config.data.use_responses,
        seed=config.seed,
    )
    chat_model = ChatModel.load(
        model.name_or_path,
        revision=model.revision,
        dtype=model.dtype,
        attn_implementation=model.attn_implementation,
        trust_remote_code=model.trust_remote_code,
        max_length=model.max_length,
        system_prompt=model.system_prompt,
    )
    if layers is None:
        layers = with_terminal(_find_emergence(config, chat_model, splits), depth)
    log.info("Layers separated: %s of %d", layers, depth)
    if model.mode == "lora":
        lora = model.lora
        chat_model.model = add_lora(
            chat_model.model,
            r=lora.r,
            lora_alpha=lora.lora_alpha,
            lora_dropout=lora.lora_dropout,
            target_modules=lora.target_modules,
        )
    reference = make_reference(model.reference, chat_model)
    measurer = instantiate(config.evaluate)
    datamodule.connect(chat_model.renderer, kl_positions=config.loss.kl_positions)  # type: ignore[arg-type]
    if config.loss.harmful_kl_weight > 0:
        _give_refusals(datamodule, reference, measurer.judge)
    trainer_settings = dict(config.trainer)
    micro_batch = trainer_settings.pop("micro_batch", None)
    module = get_class(config.method["_target_"])(
        chat_model,
        reference,
        layers=layers,
        loss=config.loss,
        schedule=config.schedule,
        optimizer=instantiate({**config.optimizer, "_partial_": True}),
        terminal_state=config.layers.terminal_state,
        micro_batch=micro_batch,
    )
    trainer = L.Trainer(
        **trainer_settings,
        max_epochs=-1,
        default_root_dir=folder,
        logger=instantiate(config.logger, save_dir=str(folder)),
        callbacks=[
            instantiate(c, dirpath=str(folder / "checkpoints")) for c in config.callbacks.values()
        ],
    )
    return Run(chat_model, datamodule, module, trainer, measurer, folder, layers)


def _find_emergence(config: TrainConfig, chat_model: ChatModel, splits: PromptSplits) -> int:
    accuracies = probe_accuracy_by_layer(
        chat_model,
        [p.text for p in splits.train.harmful[:300]],
        [p.text for p in splits.train.of("harmless", "looks_harmful")[:300]],
        held_out=(
            [p.text for p in splits.validation.harmful],
            [p.text for p in splits.validation.of("harmless", "looks_harmful")],
        ),
    )
    log.info("Probe accuracy by layer: %s", " ".join(f"{a:.2f}" for a in accuracies))
    return emergence_layer(accuracies, threshold=config.layers.threshold)


def _give_refusals(datamodule: PromptDataModule, reference: Reference, judge: Any) -> None:
    harmful = datamodule.splits.train.harmful
    refusals = collect_refusals(
        reference,
        harmful,
        lambda prompt, output: judge(prompt, output) is Outcome.REFUSED,
        max_new_tokens=32,
    )
    log.info("The reference refuses %d of %d harmful prompts", len(refusals), len(harmful))
    datamodule.use_refusals(refusals)
