"""ES2 as a LightningModule (arXiv 2603.20206, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from es2_lightning.backbone.chat_model import ChatModel, eval_mode
from es2_lightning.backbone.layouts import Packing
from es2_lightning.backbone.reference import Reference
from es2_lightning.training.across_ranks import states_of_all_ranks
from es2_lightning.training.metrics import batch_metrics
from es2_lightning.training.objective import ES2Objective, Losses
from es2_lightning.training.schedule import StageEnd, make_stages
from es2_lightning.training.settings import LossSettings, ScheduleSettings, StepSettings
from es2_lightning.training.staged_module import StagedModule

if TYPE_CHECKING:
    from es2_lightning.training.batches import PairedBatch
    from es2_lightning.training.datamodule import PromptDataModule
    from es2_lightning.training.validation_probes import ValidationStates


class ES2Module(StagedModule):
    """Separates harmful from harmless prompts layer by layer, held to the frozen reference by KL.

    Args:
        chat_model: The model to train, already wrapped by its adapter if it has one.
        reference: The frozen reference; it never enters the checkpoint.
        layers: The layer set, 1 … L.
        loss: Weights and units.
        schedule: Stages, thresholds and budgets.
        optimizer: From parameters to an optimizer, such as `partial(AdamW, lr=1e-6)`.
        terminal_state: `pre_norm` or `post_norm`: where layer L is read.
        step: How a step is computed.
        packing: How passes are laid out: what `step.packing` came to for this model.
        identity: The base model's (`backbone.model_identity`), for checkpoints: one of another
            model is refused. None: nothing is compared.

    Attributes:
        objective: The loss of one batch.
    """

    compares_outputs = True
    calls_layers = "Layers to separate"
    estimated = True

    def __init__(
        self,
        chat_model: ChatModel,
        reference: Reference,
        *,
        layers: Sequence[int],
        loss: LossSettings,
        schedule: ScheduleSettings,
        optimizer: Callable[..., Optimizer],
        terminal_state: str = "pre_norm",
        step: StepSettings | None = None,
        packing: Packing = "off",
        identity: Mapping[str, str] | None = None,
    ) -> None:
        layers = sorted(layers)
        super().__init__(
            ES2Objective(
                chat_model.model,
                reference,
                layers=layers,
                settings=loss,
                step=step,
                packing=packing,
                after_final_norm=terminal_state == "post_norm",
            ),
            stages=make_stages(schedule, layers),
            schedule=schedule,
            optimizer=optimizer,
            layers=layers,
            identity=identity,
        )
        self.loss_settings = loss

    def reference(self) -> Reference:
        """Whose distributions the KL is taken to."""
        reference: Reference = self.objective.reference
        return reference

    def setup(self, stage: str) -> None:
        """Measure the base norms, while the model is whole."""
        datamodule: PromptDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        if stage == "fit" and not self.objective.base_norms:
            self.objective.measure_base_norms(datamodule.splits.train)

    def losses(self, batch: PairedBatch, *, read_all: bool = False) -> Losses:
        """Separation and KL of one batch."""
        losses: Losses = self.objective(batch, self.running.stage.layers, read_all=read_all)
        return losses

    def figures(self, losses: Losses) -> dict[str, Tensor]:
        """Losses, KL, distances and norms."""
        return batch_metrics(losses)

    def compared_kl(self, batch: PairedBatch, losses: Losses) -> float:
        """L_KL of the training step, or without dropout."""
        if self.loss_settings.kl_check == "training":
            return float(losses.kl.detach())
        with torch.no_grad(), eval_mode(self.model):
            return float(self.losses(batch).kl)

    def log_batch(self, phase: str, losses: Losses, batch: PairedBatch) -> None:
        """Also the threshold, and the KL for progress bars."""
        super().log_batch(phase, losses, batch)
        if phase == "train":
            self.log("train/kl_threshold", self.running.stage.kl_threshold)
        self.log(
            "kl",
            losses.kl,
            prog_bar=True,
            logger=False,
            batch_size=len(batch.harmful),
            sync_dist=self.synchronized(phase),
        )

    def synchronized(self, phase: str) -> bool:
        """Also where each rank separates its own pairs: then their figures are averaged."""
        apart = not self.loss_settings.gather_pairs and self.trainer.world_size > 1
        return apart or super().synchronized(phase)

    def validation_states(self, losses: Losses) -> ValidationStates:
        """At every layer of the layer set, of all ranks."""
        harmful, harmless = losses.harmful_states, losses.harmless_states
        if not self.loss_settings.gather_pairs:
            harmful, harmless = states_of_all_ranks(harmful), states_of_all_ranks(harmless)
        return {"harmful": harmful, "harmless": harmless}

    def describe_end(self, end: StageEnd) -> str:
        """With its layers, and its KL against the threshold."""
        layers = ", ".join(map(str, end.layers))
        kl = "none" if end.kl is None else f"{end.kl:.4g}"
        return (
            f"Stage {end.stage + 1} of {len(self.stages)} over layer {layers} ended: {end.reason} "
            f"after {end.steps} steps (KL {kl}, threshold "
            f"{self.stages[end.stage].kl_threshold:.4g})"
        )

    def state_of_method(self) -> dict[str, Any]:
        """The unit of the distances."""
        return {"base_norms": dict(self.objective.base_norms)}

    def load_state_of_method(self, state: Mapping[str, Any]) -> None:
        """It is not measured anew."""
        self.objective.base_norms = dict(state["base_norms"])
