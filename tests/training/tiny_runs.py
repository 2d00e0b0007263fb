"""Real `Trainer.fit` runs on tiny models, and what they leave."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from torch import Tensor, nn

from es2_lightning.backbone.adapters import add_lora
from es2_lightning.backbone.chat_model import ChatModel
from es2_lightning.backbone.layouts import Packing
from es2_lightning.backbone.reference import Reference, make_reference
from es2_lightning.backbone.reference_cache import CachedReference, make_cached_reference
from es2_lightning.backbone.settings import ModelSettings, ReferenceCacheSettings
from es2_lightning.prompts.prompt import PromptSplits
from es2_lightning.training.atomic_checkpoint_io import AtomicCheckpointIO
from es2_lightning.training.es2_module import ES2Module
from es2_lightning.training.settings import LossSettings, ScheduleSettings, StepSettings
from es2_lightning.training.staged_module import StagedModule

from ..tiny_models import Architecture, tiny_chat_model, tiny_splits


@dataclass
class TinyRun:
    """What a run is made of; `fit` runs it. The defaults: two stages of three steps, LoRA."""

    architecture: Architecture = "llama"
    mode: Literal["lora", "full"] = "lora"
    reference: str = "copy"
    """Or adapter, cached or cached_statistics."""
    layers: Sequence[int] = (2, 4)
    terminal_state: str = "pre_norm"
    step: StepSettings = field(default_factory=StepSettings)
    packing: Packing = "grid"
    dropout: float = 0.0
    loss: LossSettings = field(default_factory=LossSettings)
    schedule: ScheduleSettings = field(
        default_factory=lambda: ScheduleSettings(kl_threshold=100.0, max_steps=3)
    )
    optimizer: Callable[..., torch.optim.Optimizer] = field(
        default_factory=lambda: partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.01)
    )
    refusals: int = 0
    refusal: str = "w7 w8 w9"
    harmless_per_batch: int = 5
    harmful_per_batch: int = 4
    use_responses: bool = True
    splits: PromptSplits = field(default_factory=tiny_splits)
    chat_model: ChatModel | None = None

    def __post_init__(self) -> None:
        chat_model = self.chat_model or tiny_chat_model(self.architecture, initializer_range=0.07)
        self.base = copy.deepcopy(chat_model.model)
        if self.mode == "lora":
            torch.manual_seed(0)
            chat_model.model = add_lora(chat_model.model, r=4, lora_dropout=self.dropout)
        self.chat_model = chat_model
        self.reference_object: Reference = self._make_reference(chat_model)
        self.module = self.make_module(chat_model)
        self.data = self.module.data(
            self.splits,
            harmless_per_batch=self.harmless_per_batch,
            harmful_per_batch=self.harmful_per_batch,
            use_responses=self.use_responses,
            seed=0,
        )
        self.data.connect(chat_model.renderer, kl_positions=self.loss.kl_positions)  # type: ignore[arg-type]
        refused = self.data.splits.train.harmful[: self.refusals]
        self.data.use_refusals({p: self.refusal for p in refused})
        if isinstance(self.reference_object, CachedReference):
            self.reference_object.ensure(self.data.output_rows(batches=math.inf))
        self._leave_the_reference()
        self.start = trainable(self.module)

    def make_module(self, chat_model: ChatModel) -> StagedModule:
        """What trains: ES2."""
        return ES2Module(
            chat_model,
            self.reference_object,
            layers=self.layers,
            loss=self.loss,
            schedule=self.schedule,
            optimizer=self.optimizer,
            terminal_state=self.terminal_state,
            step=self.step,
            packing=self.packing,
        )

    def _make_reference(self, chat_model: ChatModel) -> Reference:
        if not self.reference.startswith("cached"):
            return make_reference(self.reference, chat_model, packing=self.packing)
        hold = "statistics" if self.reference == "cached_statistics" else "hidden_states"
        settings = ModelSettings(
            name_or_path="tiny",
            mode=self.mode,
            reference="cached",
            reference_cache=ReferenceCacheSettings(hold=hold),
        )
        base = replace(chat_model, model=self.base)
        return make_cached_reference(
            chat_model,
            settings,
            packing=self.packing,
            precision="32-true",
            load_base=lambda: base,
        )

    def _leave_the_reference(self) -> None:
        """Where the model equals its reference, the KL's gradient is rounding alone.

        Adam would blow that up to full steps, and no two correct programs would agree.
        """
        generator = torch.Generator().manual_seed(1)
        for name, parameter in self.module.named_parameters():
            if parameter.requires_grad and "lora_A" not in name:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.data += 0.03 * noise.to(parameter.dtype)

    def fit(
        self, *callbacks: L.Callback, ckpt_path: str | None = None, **trainer: Any
    ) -> L.Trainer:
        """Train on the CPU, with validation as Lightning does it by default."""
        settings: dict[str, Any] = {
            "logger": False,
            "enable_checkpointing": any(isinstance(c, Checkpoint) for c in callbacks),
            "plugins": [AtomicCheckpointIO()],
            **trainer,
        }
        runner = L.Trainer(
            accelerator="cpu",
            max_epochs=-1,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=list(callbacks),
            **settings,
        )
        runner.fit(self.module, datamodule=self.data, ckpt_path=ckpt_path, weights_only=True)
        return runner

    @property
    def ends(self) -> list[tuple[tuple[int, ...], str, int]]:
        """Layers, reason and number of steps of each stage that ended."""
        assert self.module.schedule is not None
        return [(end.layers, end.reason, end.steps) for end in self.module.schedule.ends]

    def moved(self) -> float:
        """How far the trained parameters went, relative to where they began."""
        return relative_error(trainable(self.module), self.start)


class Record(L.Callback):
    """Each batch's loss, each step's gradients, and the parameters after each step."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.gradients: list[dict[str, Tensor]] = []
        self.parameters: list[dict[str, Tensor]] = []

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.gradients.append(
            {n: p.grad.clone() for n, p in pl_module.named_parameters() if p.grad is not None}
        )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any
    ) -> None:
        self.losses.append(float(outputs["loss"]))
        if len(self.parameters) < trainer.global_step:
            self.parameters.append(trainable(pl_module))


def every_step(folder: Path) -> ModelCheckpoint:
    """A checkpoint after each optimizer step, `<step>.ckpt`."""
    return ModelCheckpoint(
        folder,
        filename="{step}",
        auto_insert_metric_name=False,
        every_n_train_steps=1,
        save_top_k=-1,
    )


def trainable(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the parameters that train."""
    return {n: p.detach().clone() for n, p in module.named_parameters() if p.requires_grad}


def relative_error(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """‖got - wanted‖ / ‖wanted‖ over all tensors."""
    assert got.keys() == wanted.keys() and got
    difference = sum(float((got[n] - wanted[n]).double().square().sum()) for n in wanted)
    return (difference / sum(float(w.double().square().sum()) for w in wanted.values())) ** 0.5
