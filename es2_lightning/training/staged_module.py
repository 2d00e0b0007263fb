"""What every method of fine-tuning shares: stages with budgets, checkpoints, several ranks."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from es2_lightning.backbone.checkpointing import assert_checkpointing_active
from es2_lightning.training.checkpoints import restore_random_state
from es2_lightning.training.datamodule import PromptDataModule
from es2_lightning.training.resumable_module import ResumableModule
from es2_lightning.training.resumed_epoch import count_next_epoch
from es2_lightning.training.schedule import Stage, StageEnd, StageSchedule
from es2_lightning.training.settings import ScheduleSettings
from es2_lightning.training.sharding import ShardedStrategy, shard

if TYPE_CHECKING:
    from es2_lightning.backbone.reference import Reference
    from es2_lightning.training.batches import PairedBatch
    from es2_lightning.training.validation_probes import ValidationStates

log = logging.getLogger(__name__)


class StagedModule(ResumableModule):
    """A method of fine-tuning: it minimises a loss in stages, each with a budget.

    A method says what the loss of a batch is (`losses`) and what is logged of it (`figures`); it
    may keep a KL below a threshold (`compared_kl`). The rest is here: optimizer steps that are
    applied or dropped, checkpoints from which any number of processes goes on, sharding.

    Args:
        objective: The loss; all of a step happens inside its forward. Its `model` is what trains.
        stages: In the order in which they run.
        schedule: The convergence rule.
        optimizer: From parameters to an optimizer, such as `partial(AdamW, lr=1e-6)`.
        layers: The layer set, 1 … L; empty where the method has none.
        identity: The base model's (`backbone.model_identity`), for checkpoints: one of another
            model is refused. None: nothing is compared.

    Attributes:
        data: What makes its batches.
        compares_outputs: Whether its loss asks the reference for next-token distributions, which
            can be computed once for all steps.
        calls_layers: What the layer set is to it, for the log.
        estimated: Whether `training_estimate` counts its step.
        on_stage_end: Called with each stage's end, for displays and reports.
    """

    data: ClassVar[type[PromptDataModule]] = PromptDataModule
    compares_outputs: ClassVar[bool] = False
    calls_layers: ClassVar[str] = "Layers to look at"
    estimated: ClassVar[bool] = False

    def __init__(
        self,
        objective: nn.Module,
        *,
        stages: Sequence[Stage],
        schedule: ScheduleSettings,
        optimizer: Callable[..., Optimizer],
        layers: Sequence[int] = (),
        identity: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(layers=layers, identity=identity)
        self.objective: Any = objective
        self.stages = list(stages)
        self.schedule_settings = schedule
        self.make_optimizer = optimizer
        self.on_stage_end: list[Callable[[StageEnd], None]] = []

    @classmethod
    def check_own(cls, **own: Any) -> None:
        """Refuse values of the method's own words; asked before any weights load.

        Args:
            own: Those that are given.

        Raises:
            UserError: A value is not accepted.
        """

    def losses(self, batch: PairedBatch, *, read_all: bool = False) -> Any:
        """The terms of a batch in the running stage; their `loss`, a scalar, is minimised.

        Its value is the whole batch's; its gradient, averaged over the ranks, too.

        Args:
            batch: Rows of this rank.
            read_all: Also what is only looked at.
        """
        raise NotImplementedError

    def figures(self, losses: Any) -> dict[str, Tensor]:
        """What is logged of a batch, by name; scalars."""
        raise NotImplementedError

    def compared_kl(self, batch: PairedBatch, losses: Any) -> float:
        """What the stage's threshold is compared with, nats; 0 where a method has no threshold."""
        return 0.0

    def validation_states(self, losses: Any) -> ValidationStates | None:
        """The states that a validation came by, for `ValidationProbes`; None: there are none."""
        return None

    def describe_end(self, end: StageEnd) -> str:
        """A stage's end, in a line."""
        return f"Training ended: {end.reason} after {end.steps} steps"

    def reference(self) -> Reference | None:
        """The frozen reference, which is sharded where the model is; None: there is none."""
        return None

    @property
    def model(self) -> Any:
        """The causal LM that trains, its adapter included."""
        return self.objective.model

    def most_batches(self, *, steps_per_epoch: int, accumulate: int) -> float:
        """How many batches all stages take at the most, the step that ends each included."""
        return sum((stage.budget(steps_per_epoch) + 1) * accumulate for stage in self.stages)

    def configure_model(self) -> None:
        """Shard the model, and a copied reference, where the strategy asks for it."""
        strategy = self.trainer.strategy
        if isinstance(strategy, ShardedStrategy):
            mesh = strategy.device_mesh["data_parallel"]
            reference = self.reference()
            for root in (self.objective, None if reference is None else reference.root()):
                if root is not None:
                    shard(root, root.model, mesh, offload=strategy.offload)

    def on_fit_start(self) -> None:
        """Build the schedule, and go on with a saved one."""
        datamodule: PromptDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        steps = math.ceil(len(datamodule.train_dataloader()) / self.trainer.accumulate_grad_batches)
        self.schedule = StageSchedule(self.stages, self.schedule_settings, steps_per_epoch=steps)
        if self.resumed is not None:
            self.schedule.load_state_dict(self.resumed["schedule"])
        # transformers models arrive in eval mode, and Lightning leaves them there. Lightning puts
        # back the mode that it finds now whenever a validation is over.
        self.model.train()
        assert_checkpointing_active(self.model)

    def on_train_start(self) -> None:
        """Go on with saved random numbers; stop at once where nothing is left to do."""
        count_next_epoch(self.trainer)
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        saved = [] if self.resumed is None else self.resumed["random_states"]
        if rank < len(saved):
            restore_random_state(saved[rank])
        elif ranks > 1:
            # Adapters began alike; dropout must differ, or all ranks would drop the same.
            torch.manual_seed(torch.initial_seed() + 1 + rank)
        if self.running.finished:
            self.trainer.should_stop = True

    def training_step(self, batch: PairedBatch, batch_idx: int) -> Tensor:
        """The losses of one batch."""
        assert self.model.training, "the policy must be in train mode"
        schedule = self.running
        losses = self.losses(batch)
        schedule.add_batch(kl=self.compared_kl(batch, losses), loss=float(losses.loss.detach()))
        self.log_batch("train", losses, batch)
        self.log("train/stage", float(schedule.stage_index))
        return losses.loss * self._missing_batches(batch_idx)

    def _missing_batches(self, batch_idx: int) -> float:
        """What makes a step's gradient the mean over its batches, however many it holds.

        An epoch's last step may hold fewer than `accumulate_grad_batches`, but Lightning divides
        by that number all the same.
        """
        accumulate = self.trainer.accumulate_grad_batches
        first = batch_idx - batch_idx % accumulate
        return accumulate / min(accumulate, self.trainer.num_training_batches - first)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Algorithm 1's check, on the accumulated step, before its update.

        Lightning calls this after the last backward pass of a step and before the optimizer moves.
        A step without gradients leaves weights and optimizer state alone, so dropping the
        gradients drops the step.
        """
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self.log("train/gradient_norm", norm.full_tensor() if isinstance(norm, DTensor) else norm)
        self.log("train/learning_rate", optimizer.param_groups[0]["lr"])
        if self.running.drops_step():
            for parameter in self.model.parameters():
                parameter.grad = None

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The step, applied or dropped; then the schedule counts it.

        Counted here, since callbacks that write checkpoints run before the module's own
        `on_train_batch_end`, and a checkpoint must hold the step that its weights have taken.
        """
        super().optimizer_step(*args, **kwargs)
        end = self.running.end_step()
        if end is not None:
            self._end_stage(end)

    def _end_stage(self, end: StageEnd) -> None:
        # A fresh optimizer, as Lightning itself makes one at the start of `fit`.
        self.trainer.strategy.setup_optimizers(self.trainer)
        # Displays first: a line logged through a live display would tear it.
        for report in self.on_stage_end:
            report(end)
        log.info(self.describe_end(end))
        if self.running.finished:
            self.trainer.should_stop = True

    def on_train_end(self) -> None:
        """Back to eval mode, in which the model came: what follows measures it."""
        self.model.eval()

    def validation_step(self, batch: PairedBatch, batch_idx: int) -> ValidationStates | None:
        """The same figures on validation prompts; gives `validation_states`."""
        assert not self.model.training, "validation must see no dropout"
        losses = self.losses(batch, read_all=True)
        self.log_batch("validation", losses, batch)
        return self.validation_states(losses)

    def configure_optimizers(self) -> Optimizer:
        """One optimizer over what trains."""
        return self.make_optimizer([p for p in self.parameters() if p.requires_grad])

    def log_batch(self, phase: str, losses: Any, batch: PairedBatch) -> None:
        """Log a batch's figures, as `train/…` or `validation/…`."""
        on_epoch = phase != "train"
        self.log_dict(
            {f"{phase}/{name}": value for name, value in self.figures(losses).items()},
            batch_size=len(batch.harmful),
            on_step=not on_epoch,
            on_epoch=on_epoch,
            sync_dist=self.synchronized(phase),
        )

    def synchronized(self, phase: str) -> bool:
        """Whether Lightning must be told that a figure is the same on all ranks: it is already."""
        return phase != "train" and self.trainer.world_size > 1
