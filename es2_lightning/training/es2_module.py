"""ES2 as a LightningModule (arXiv 2603.20206, Algorithm 1)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint

from es2_lightning.backbone.adapters import adapter_is_on
from es2_lightning.backbone.chat_model import ChatModel, eval_mode
from es2_lightning.backbone.hidden_states import (
    at_position,
    capture_hidden_states,
    last_token_states,
)
from es2_lightning.backbone.reference import Reference
from es2_lightning.objectives.kl import kl_per_prompt
from es2_lightning.objectives.separation import (
    mean_distance_within,
    mean_norm,
    mean_pairwise_distance,
)
from es2_lightning.training.batches import PairedBatch
from es2_lightning.training.checkpoints import keep_trainable, require_same_keys
from es2_lightning.training.schedule import StageEnd, StageSchedule, make_stages
from es2_lightning.training.settings import LossSettings, ScheduleSettings

log = logging.getLogger(__name__)


@dataclass
class Losses:
    """The terms of one batch; scalars but for the states.

    Attributes:
        loss: What is minimised.
        kl: L_KL, the mean over harmless prompts, nats.
        harmful_kl: The mean over harmful prompts with a refusal, nats; 0 where there are none.
        distances: Mean pairwise distance at each layer of the stage, in the configured unit.
        harmless_states: Layer to (M, D), at each prompt's last token.
        harmful_states: Layer to (N, D).
    """

    loss: Tensor
    kl: Tensor
    harmful_kl: Tensor
    distances: dict[int, Tensor]
    harmless_states: dict[int, Tensor]
    harmful_states: dict[int, Tensor]


class ES2Module(L.LightningModule):
    """Separates harmful from harmless prompts layer by layer, held to the frozen reference by KL.

    Args:
        chat_model: The model to train, already wrapped by its adapter if it has one.
        reference: The frozen reference; it never enters the checkpoint.
        layers: The layer set, 1 … L, shallow first.
        loss: Weights and units.
        schedule: Stages, thresholds and budgets.
        optimizer: From parameters to an optimizer, such as `partial(AdamW, lr=1e-6)`.
        terminal_state: `pre_norm` or `post_norm`: where layer L is read.
        micro_batch: The most prompts in one forward pass; None: the whole batch. Exact: the
            activations of all but one part are recomputed in the backward pass, and all pairs meet
            in one separation loss.
    """

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
        micro_batch: int | None = None,
    ) -> None:
        super().__init__()
        self.chat_model = chat_model
        self.model = chat_model.model
        self.reference = reference
        self.layers = sorted(layers)
        self.loss_settings = loss
        self.schedule_settings = schedule
        self.stages = make_stages(schedule, self.layers)
        self.make_optimizer = optimizer
        self.after_final_norm = terminal_state == "post_norm"
        self.micro_batch = micro_batch
        self.schedule: StageSchedule | None = None
        self.base_norms: dict[int, float] = {}
        self.on_stage_end: list[Callable[[StageEnd], None]] = []
        self._saved_schedule: dict[str, Any] | None = None
        self._step_kl: list[float] = []
        self._step_loss: list[float] = []
        self._dropped = False
        # Lightning must not ask for the frozen weights back; on_load_checkpoint checks the keys.
        self.strict_loading = False

    # --- the objective ---------------------------------------------------------------------

    def forward(self, batch: PairedBatch) -> Tensor:
        """Next-token logits, (B, T, V)."""
        return self.model(
            input_ids=batch.tokens.input_ids,
            attention_mask=batch.tokens.attention_mask,
            use_cache=False,
        ).logits

    def losses(self, batch: PairedBatch, layers: Sequence[int]) -> Losses:
        """All terms of a batch, with gradients where they are enabled.

        Args:
            batch: N harmful and M harmless prompts.
            layers: The layers that are separated; the states of the whole layer set are returned.
        """
        parts = batch.micro_batches(self.micro_batch)
        outputs = []
        for index in parts:
            part = batch.rows(index)
            reference_logits = self.reference.logits(part.tokens)
            if len(parts) == 1:
                outputs.append(self._policy(part, reference_logits))
            else:
                outputs.append(
                    checkpoint(self._policy, part, reference_logits, use_reentrant=False)
                )
        order = torch.cat(parts).argsort()
        kl_B = torch.cat([kl for kl, _ in outputs])[order]
        states = {layer: torch.cat([s[layer] for _, s in outputs])[order] for layer in self.layers}
        harmful = batch.harmful
        refused = harmful & batch.kl_mask.any(1)
        kl = kl_B[~harmful].mean()
        harmful_kl = kl_B[refused].mean() if refused.any() else kl_B.new_zeros(())
        harmful_states = {layer: h[harmful] for layer, h in states.items()}
        harmless_states = {layer: h[~harmful] for layer, h in states.items()}
        distances = {
            layer: mean_pairwise_distance(harmful_states[layer], harmless_states[layer])
            / self._unit(layer)
            for layer in layers
        }
        settings = self.loss_settings
        # Over several layers the mean: the weights keep their meaning whatever their number.
        separation = torch.stack(list(distances.values())).mean()
        loss = (
            -settings.separation_weight * separation
            + settings.kl_weight * kl
            + settings.harmful_kl_weight * harmful_kl
        )
        return Losses(loss, kl, harmful_kl, distances, harmless_states, harmful_states)

    def _policy(
        self, part: PairedBatch, reference_logits: Tensor
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """KL of each row, (B,), and last-prompt-token states of each layer, (B, D)."""
        # The capture stands inside, so that a recomputed forward pass has hooks of its own.
        with capture_hidden_states(
            self.model, self.layers, after_final_norm=self.after_final_norm
        ) as captured:
            logits = self(part)
        states = {
            layer: at_position(captured[layer], part.tokens.last_prompt_index)
            for layer in self.layers
        }
        return kl_per_prompt(reference_logits, logits, part.kl_mask), states

    def _unit(self, layer: int) -> float:
        return self.base_norms[layer] if self.loss_settings.distance_unit == "base_norm" else 1.0

    # --- training --------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Measure the base norms, build the schedule, and go on with a saved one."""
        if not self.base_norms:
            self.base_norms = self._measure_base_norms()
        accumulate = self.trainer.accumulate_grad_batches
        batches = len(self.trainer.datamodule.train_dataloader())  # type: ignore[attr-defined]
        self.schedule = StageSchedule(
            self.stages,
            self.schedule_settings,
            steps_per_epoch=math.ceil(batches / accumulate),
        )
        if self._saved_schedule is not None:
            self.schedule.load_state_dict(self._saved_schedule)

    @torch.no_grad()
    def _measure_base_norms(self) -> dict[int, float]:
        prompts = self.trainer.datamodule.splits.train  # type: ignore[attr-defined]
        # The two classes weigh the same, whatever their numbers.
        size = min(len(prompts.harmful), len(prompts.harmless), 256)
        texts = [p.text for p in (*prompts.harmful[:size], *prompts.harmless[:size])]
        with self.reference.chat_model() as reference:
            states = last_token_states(
                reference, texts, self.layers, after_final_norm=self.after_final_norm
            )
        return {layer: float(mean_norm(states[:, i])) for i, layer in enumerate(self.layers)}

    def on_train_start(self) -> None:
        """Train mode: transformers models arrive in eval mode, and Lightning leaves them there."""
        self.model.train()
        if self._running.finished:
            self.trainer.should_stop = True

    def on_train_epoch_start(self) -> None:
        """Train mode again after a validation loop that found the model elsewhere."""
        self.model.train()

    def training_step(self, batch: PairedBatch, batch_idx: int) -> Tensor:
        """Both losses on one batch."""
        assert self.model.training, "the policy must be in train mode"
        layers = self._running.stage.layers
        losses = self.losses(batch, layers)
        self._step_kl.append(self._compared_kl(batch, losses))
        self._step_loss.append(float(losses.loss.detach()))
        self._log_losses("train", losses, len(batch.harmful))
        self.log("train/stage", float(self._running.stage_index))
        self.log("train/kl_threshold", self._running.stage.kl_threshold)
        return losses.loss

    def _compared_kl(self, batch: PairedBatch, losses: Losses) -> float:
        if self.loss_settings.kl_check == "training":
            return float(losses.kl.detach())
        with torch.no_grad(), eval_mode(self.model):
            return float(self.losses(batch, self._running.stage.layers).kl)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Algorithm 1's check, on the accumulated step, before its update.

        Lightning calls this after the last backward pass of a step and before the optimizer moves.
        A step without gradients leaves weights and optimizer state alone, so dropping the
        gradients drops the step.
        """
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.log("train/gradient_norm", torch.nn.utils.get_total_norm(gradients))
        step_kl = sum(self._step_kl) / len(self._step_kl)
        self._dropped = self._running.exceeds(step_kl)
        if self._dropped:
            for parameter in self.model.parameters():
                parameter.grad = None

    def on_train_batch_end(self, outputs: Any, batch: PairedBatch, batch_idx: int) -> None:
        """Once the step is taken or dropped: let the schedule count it."""
        if self.trainer.fit_loop._should_accumulate():
            return
        kl = sum(self._step_kl) / len(self._step_kl)
        loss = sum(self._step_loss) / len(self._step_loss)
        self._step_kl, self._step_loss = [], []
        if self._running.finished:
            return
        end = self._running.observe(kl=kl, loss=loss)
        assert self._dropped == (end is not None and end.reason == "kl_threshold")
        if end is not None:
            self._end_stage(end)

    def _end_stage(self, end: StageEnd) -> None:
        log.info(
            "Stage %d of %d over layer %s ended: %s after %d steps (KL %.4g, threshold %.4g)",
            end.stage + 1,
            len(self.stages),
            ", ".join(map(str, end.layers)),
            end.reason,
            end.steps,
            end.kl,
            self.stages[end.stage].kl_threshold,
        )
        optimizers = self.optimizers()
        assert not isinstance(optimizers, list)
        # A fresh optimizer: its state goes, and is made anew at the next step.
        optimizers.optimizer.state.clear()
        for report in self.on_stage_end:
            report(end)
        if self._running.finished:
            self.trainer.should_stop = True

    def validation_step(self, batch: PairedBatch, batch_idx: int) -> None:
        """The same figures on validation prompts."""
        assert not self.model.training
        losses = self.losses(batch, self._running.stage.layers)
        self._log_losses("validation", losses, len(batch.harmful))

    def configure_optimizers(self) -> Optimizer:
        """One optimizer over what trains."""
        return self.make_optimizer([p for p in self.parameters() if p.requires_grad])

    # --- logging ---------------------------------------------------------------------------

    def _log_losses(self, phase: str, losses: Losses, batch_size: int) -> None:
        values: dict[str, Tensor | float] = {
            "loss": losses.loss,
            "kl": losses.kl,
            "harmful_kl": losses.harmful_kl,
            "separation": torch.stack(list(losses.distances.values())).mean(),
        }
        with torch.no_grad():
            for layer in self.layers:
                harmful, harmless = losses.harmful_states[layer], losses.harmless_states[layer]
                norm_harmful, norm_harmless = mean_norm(harmful), mean_norm(harmless)
                between = mean_pairwise_distance(harmful, harmless)
                norm = (norm_harmful + norm_harmless) / 2
                values |= {
                    f"layer_{layer}/distance": between,
                    f"layer_{layer}/distance_relative": between / norm,
                    f"layer_{layer}/distance_within_harmful": mean_distance_within(harmful),
                    f"layer_{layer}/distance_within_harmless": mean_distance_within(harmless),
                    f"layer_{layer}/norm_harmful": norm_harmful,
                    f"layer_{layer}/norm_harmless": norm_harmless,
                }
        self.log_dict(
            {f"{phase}/{name}": value for name, value in values.items()},
            batch_size=batch_size,
            on_step=phase == "train",
            on_epoch=phase != "train",
        )
        self.log("kl", losses.kl, prog_bar=True, logger=False, batch_size=batch_size)

    # --- checkpoints -----------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Trainable weights only, and the schedule's state, in plain containers."""
        checkpoint["state_dict"] = keep_trainable(self, checkpoint["state_dict"])
        checkpoint["es2"] = {
            "layers": list(self.layers),
            "base_norms": dict(self.base_norms),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "step_kl": list(self._step_kl),
            "step_loss": list(self._step_loss),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with a saved schedule.

        Raises:
            UserError: The checkpoint is of another model, layer set or schedule.
        """
        require_same_keys(self, checkpoint)
        state = checkpoint["es2"]
        if state["layers"] != self.layers:
            from es2_lightning.errors import UserError

            raise UserError(
                f"ckpt_path: the checkpoint was trained with layers {state['layers']}, this run "
                f"has {self.layers}: resume with the same layers"
            )
        self.base_norms = dict(state["base_norms"])
        self._saved_schedule = state["schedule"]
        self._step_kl, self._step_loss = list(state["step_kl"]), list(state["step_loss"])

    @property
    def _running(self) -> StageSchedule:
        assert self.schedule is not None, "the schedule is built in on_fit_start"
        return self.schedule

    @property
    def adapter_on(self) -> bool:
        """Whether the forward pass goes through the adapter."""
        return adapter_is_on(self.model)
