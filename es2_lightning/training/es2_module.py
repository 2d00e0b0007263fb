"""ES2 as a LightningModule (arXiv 2603.20206, Algorithm 1)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from es2_lightning.backbone.chat_model import ChatModel, eval_mode
from es2_lightning.backbone.checkpointing import assert_checkpointing_active
from es2_lightning.backbone.layouts import Packing
from es2_lightning.backbone.reference import Reference
from es2_lightning.training.across_ranks import of_all_ranks
from es2_lightning.training.checkpoints import (
    keep_trainable,
    random_state,
    require_ours,
    require_same_keys,
    require_same_layers,
    require_same_model,
    restore_random_state,
)
from es2_lightning.training.metrics import batch_metrics
from es2_lightning.training.objective import ES2Objective, Losses
from es2_lightning.training.schedule import StageEnd, StageSchedule, make_stages
from es2_lightning.training.settings import LossSettings, ScheduleSettings, StepSettings
from es2_lightning.training.sharding import ShardedStrategy, shard
from es2_lightning.training.whole_state import (
    optimizer_state_by_name,
    optimizer_state_by_position,
    sharded_as,
)

if TYPE_CHECKING:
    from es2_lightning.training.batches import PairedBatch
    from es2_lightning.training.datamodule import PromptDataModule

log = logging.getLogger(__name__)


class ES2Module(L.LightningModule):
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
        schedule: Which stage runs; None before `fit`.
        on_stage_end: Called with each stage's end, for displays and reports.
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
        step: StepSettings | None = None,
        packing: Packing = "off",
        identity: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.layers = sorted(layers)
        self.loss_settings = loss
        self.schedule_settings = schedule
        self.stages = make_stages(schedule, self.layers)
        self.make_optimizer = optimizer
        self.objective = ES2Objective(
            chat_model.model,
            reference,
            layers=self.layers,
            settings=loss,
            step=step,
            packing=packing,
            after_final_norm=terminal_state == "post_norm",
        )
        self.identity = dict(identity or {})
        self.schedule: StageSchedule | None = None
        self.on_stage_end: list[Callable[[StageEnd], None]] = []
        self._resumed: dict[str, Any] | None = None
        # Lightning must not ask for the frozen weights back; on_load_checkpoint checks the keys.
        self.strict_loading = False

    @property
    def model(self) -> Any:
        """The causal LM that trains, its adapter included."""
        return self.objective.model

    def most_batches(self, *, steps_per_epoch: int, accumulate: int) -> float:
        """How many batches all stages take at the most, the step that ends each included."""
        return sum((stage.budget(steps_per_epoch) + 1) * accumulate for stage in self.stages)

    def setup(self, stage: str) -> None:
        """Measure the base norms, while the model is whole."""
        datamodule: PromptDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        if stage == "fit" and not self.objective.base_norms:
            self.objective.measure_base_norms(datamodule.splits.train)

    def configure_model(self) -> None:
        """Shard the model, and a copied reference, where the strategy asks for it."""
        strategy = self.trainer.strategy
        if isinstance(strategy, ShardedStrategy):
            mesh = strategy.device_mesh["data_parallel"]
            for root in (self.objective, self.objective.reference.root()):
                if root is not None:
                    shard(root, root.model, mesh, offload=strategy.offload)

    def on_fit_start(self) -> None:
        """Build the schedule, and go on with a saved one."""
        datamodule: PromptDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        steps = math.ceil(len(datamodule.train_dataloader()) / self.trainer.accumulate_grad_batches)
        self.schedule = StageSchedule(self.stages, self.schedule_settings, steps_per_epoch=steps)
        if self._resumed is not None:
            self.schedule.load_state_dict(self._resumed["schedule"])
        # transformers models arrive in eval mode, and Lightning leaves them there. Lightning puts
        # back the mode that it finds now whenever a validation is over.
        self.model.train()
        assert_checkpointing_active(self.model)

    def on_train_start(self) -> None:
        """Go on with saved random numbers; stop at once where nothing is left to do."""
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        saved = [] if self._resumed is None else self._resumed["random_states"]
        if rank < len(saved):
            restore_random_state(saved[rank])
        elif ranks > 1:
            # Adapters began alike; dropout must differ, or all ranks would drop the same.
            torch.manual_seed(torch.initial_seed() + 1 + rank)
        if self._running.finished:
            self.trainer.should_stop = True

    def training_step(self, batch: PairedBatch, batch_idx: int) -> Tensor:
        """Both losses on one batch."""
        assert self.model.training, "the policy must be in train mode"
        schedule = self._running
        losses = self.objective(batch, schedule.stage.layers)
        schedule.add_batch(kl=self._compared_kl(batch, losses), loss=float(losses.loss.detach()))
        self._log_batch("train", losses, batch)
        self.log("train/stage", float(schedule.stage_index))
        self.log("train/kl_threshold", schedule.stage.kl_threshold)
        return losses.loss * self._missing_batches(batch_idx)

    def _missing_batches(self, batch_idx: int) -> float:
        """What makes a step's gradient the mean over its batches, however many it holds.

        An epoch's last step may hold fewer than `accumulate_grad_batches`, but Lightning divides
        by that number all the same.
        """
        accumulate = self.trainer.accumulate_grad_batches
        first = batch_idx - batch_idx % accumulate
        return accumulate / min(accumulate, self.trainer.num_training_batches - first)

    def _compared_kl(self, batch: PairedBatch, losses: Losses) -> float:
        if self.loss_settings.kl_check == "training":
            return float(losses.kl.detach())
        with torch.no_grad(), eval_mode(self.model):
            return float(self.objective(batch, self._running.stage.layers).kl)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Algorithm 1's check, on the accumulated step, before its update.

        Lightning calls this after the last backward pass of a step and before the optimizer moves.
        A step without gradients leaves weights and optimizer state alone, so dropping the
        gradients drops the step.
        """
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self.log("train/gradient_norm", norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if self._running.drops_step():
            for parameter in self.model.parameters():
                parameter.grad = None

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The step, applied or dropped; then the schedule counts it.

        Counted here, since callbacks that write checkpoints run before the module's own
        `on_train_batch_end`, and a checkpoint must hold the step that its weights have taken.
        """
        super().optimizer_step(*args, **kwargs)
        end = self._running.end_step()
        if end is not None:
            self._end_stage(end)

    def _end_stage(self, end: StageEnd) -> None:
        # A fresh optimizer, as Lightning itself makes one at the start of `fit`.
        self.trainer.strategy.setup_optimizers(self.trainer)
        # Displays first: a line logged through a live display would tear it.
        for report in self.on_stage_end:
            report(end)
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
        if self._running.finished:
            self.trainer.should_stop = True

    def on_train_end(self) -> None:
        """Back to eval mode, in which the model came: what follows measures it."""
        self.model.eval()

    def validation_step(self, batch: PairedBatch, batch_idx: int) -> None:
        """The same figures on validation prompts."""
        assert not self.model.training, "validation must see no dropout"
        losses = self.objective(batch, self._running.stage.layers, read_all=True)
        self._log_batch("validation", losses, batch)

    def configure_optimizers(self) -> Optimizer:
        """One optimizer over what trains."""
        return self.make_optimizer([p for p in self.parameters() if p.requires_grad])

    def _log_batch(self, phase: str, losses: Losses, batch: PairedBatch) -> None:
        on_epoch = phase != "train"
        # The figures are of the whole batch on every rank already; Lightning only wants to be told.
        synchronized = on_epoch and self.trainer.world_size > 1
        self.log_dict(
            {f"{phase}/{name}": value for name, value in batch_metrics(losses).items()},
            batch_size=len(batch.harmful),
            on_step=not on_epoch,
            on_epoch=on_epoch,
            sync_dist=synchronized,
        )
        self.log(
            "kl",
            losses.kl,
            prog_bar=True,
            logger=False,
            batch_size=len(batch.harmful),
            sync_dist=synchronized,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Trainable weights only, and what a resumed run needs, in plain containers."""
        checkpoint["state_dict"] = keep_trainable(self, checkpoint["state_dict"])
        checkpoint["optimizer_states"] = [
            optimizer_state_by_name(optimizer, self) for optimizer in self.trainer.optimizers
        ]
        checkpoint["es2"] = {
            "model": self.identity,
            "layers": list(self.layers),
            "base_norms": dict(self.objective.base_norms),
            "schedule": self._running.state_dict(),
            "random_states": of_all_ranks(random_state()),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with a saved schedule.

        Raises:
            UserError: The checkpoint is of another model, layer set or schedule.
        """
        self.check_checkpoint(checkpoint)
        parameters = dict(self.named_parameters())
        checkpoint["state_dict"] = {
            name: sharded_as(parameters[name], tensor)
            for name, tensor in checkpoint["state_dict"].items()
        }
        checkpoint["optimizer_states"] = [
            optimizer_state_by_position(state, self) for state in checkpoint["optimizer_states"]
        ]
        state = checkpoint["es2"]
        self.objective.base_norms = dict(state["base_norms"])
        self._resumed = state
        if self.schedule is not None:  # Sharded models load after `on_fit_start`.
            self.schedule.load_state_dict(state["schedule"])

    def check_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that this run cannot go on from.

        Raises:
            UserError: It is of another model, tokenizer, adapter or layer set, or none of ours.
        """
        require_ours(checkpoint)
        require_same_model(checkpoint["es2"]["model"], self.identity)
        require_same_layers(checkpoint["es2"]["layers"], self.layers)
        require_same_keys(self, checkpoint)

    @property
    def _running(self) -> StageSchedule:
        assert self.schedule is not None, "the schedule is built in on_fit_start"
        return self.schedule
