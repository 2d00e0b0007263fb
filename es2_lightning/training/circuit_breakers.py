"""Circuit breakers, representation rerouting (Zou et al. 2024, arXiv 2406.04313, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer

from es2_lightning.backbone.chat_model import ChatModel
from es2_lightning.backbone.layouts import Packing
from es2_lightning.backbone.reference import Reference
from es2_lightning.backbone.row_pass import output_states
from es2_lightning.backbone.structure import find_structure
from es2_lightning.errors import UserError
from es2_lightning.objectives.circuit_breakers import rerouting, retention, weights
from es2_lightning.training.across_ranks import mean_over_ranks
from es2_lightning.training.batches import PairedBatch
from es2_lightning.training.response_data import CircuitBreakerDataModule
from es2_lightning.training.row_objective import RowObjective
from es2_lightning.training.schedule import make_stages
from es2_lightning.training.settings import ScheduleSettings, StepSettings
from es2_lightning.training.sharding import ShardedStrategy
from es2_lightning.training.staged_module import StagedModule

if TYPE_CHECKING:
    from es2_lightning.backbone.token_rows import TokenRow

Positions = Literal["all", "response"]


@dataclass(frozen=True)
class CircuitBreakerLosses:
    """The terms of one batch, of all ranks; scalars.

    Attributes:
        loss: What is minimised.
        rerouting: ReLU(cos) of harmful completions, the mean over positions and target layers.
        retention: ‖h_θ − h_base‖₂ of what is retained, the mean over positions and all layers.
    """

    loss: Tensor
    rerouting: Tensor
    retention: Tensor


class CircuitBreakerObjective(RowObjective):
    """alpha·(1 − t/2T)·rerouting + alpha·(t/2T)·w·retention; see `RowObjective`.

    Args:
        model: The causal LM that is trained, its adapter included.
        reference: The frozen reference.
        layers: The target layers, at which completions are rerouted.
        alpha: The scale of both losses.
        positions: Where completions are rerouted: at `all` tokens, those of the request too, as in
            the released code, or at those of the `response`.
        retention_weight: w; 1 in the paper. Retention is a length, so its weight against rerouting,
            an angle, depends on how long a model's states are.
        step: How a step is computed; no choice changes what is computed.
        packing: How passes are laid out.
    """

    def __init__(
        self,
        model: Any,
        reference: Reference,
        *,
        layers: Sequence[int],
        alpha: float,
        positions: Positions,
        retention_weight: float,
        step: StepSettings | None = None,
        packing: Packing = "off",
    ) -> None:
        super().__init__(model, step=step, packing=packing)
        self.reference = reference
        self.layers = list(layers)
        self.alpha = alpha
        self.positions = positions
        self.retention_weight = retention_weight
        self._depth = len(find_structure(model).blocks)

    def forward(self, batch: PairedBatch, *, progress: float) -> CircuitBreakerLosses:
        """The terms of a batch.

        Args:
            batch: Rows to retain, then rows to break, which are marked `harmful`.
            progress: t/T, the share of the steps that are done.
        """
        number = batch.harmful.count(False)
        broken = [self._rerouted(row) for row in batch.rows[number:]]
        every = range(1, self._depth + 1)
        reroute = mean_over_ranks(self._compared(broken, self.layers, rerouting))
        retain = mean_over_ranks(self._compared(batch.rows[:number], every, retention))
        of_rerouting, of_retention = weights(self.alpha, progress)
        of_retention *= self.retention_weight
        share = of_rerouting * reroute.share + of_retention * retain.share
        loss = of_rerouting * reroute.value + of_retention * retain.value
        return CircuitBreakerLosses(
            # The value of the whole batch, with the gradient of this rank's share.
            loss=share + (loss - share).detach(),
            rerouting=reroute.value,
            retention=retain.value,
        )

    def _rerouted(self, row: TokenRow) -> TokenRow:
        if self.positions == "all":
            return row
        first = row.last_prompt_index + 1
        return replace(row, output_positions=tuple(range(first, len(row.token_ids))))

    def _compared(
        self,
        rows: Sequence[TokenRow],
        layers: Sequence[int],
        compare: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """A comparison with the reference's states at each output position, (E,)."""
        if not rows:
            return torch.zeros(0, device=self.device)
        alone = PairedBatch(tuple(rows), (False,) * len(rows))
        parts = alone.micro_batches(self.step.micro_batch)
        return torch.cat(
            [
                self._part([rows[i] for i in part], layers, compare, recompute=len(parts) > 1)
                for part in parts
            ]
        )

    def _part(
        self,
        rows: Sequence[TokenRow],
        layers: Sequence[int],
        compare: Callable[[Tensor, Tensor], Tensor],
        *,
        recompute: bool,
    ) -> Tensor:
        layout = self.layout(rows)
        with torch.no_grad(), self.reference.chat_model() as base:
            wanted = output_states(base.model, layout, layers)
        found = self.recomputed(output_states, self.model, layout, layers, recompute=recompute)
        return torch.stack([compare(found[layer], wanted[layer]) for layer in layers]).mean(0)


class CircuitBreakersModule(StagedModule):
    """Turns the states of harmful completions away from the reference's, and retains all others.

    One stage, without a threshold; T is its budget. `layers` holds the target layers. Retention is
    over all layers, the last after the final norm, as in the released code; of the embeddings,
    which no adapter reaches, that would be 0. The arguments not named here are those of
    `ES2Module`.

    Args:
        alpha: The scale of both losses.
        positions: Where completions are rerouted: at `all` tokens, or at those of the `response`.
        retention_weight: What retention weighs beside that; 1 in the paper.

    Raises:
        UserError: A value is not accepted.
    """

    data = CircuitBreakerDataModule
    calls_layers = "Layers to reroute at"

    def __init__(
        self,
        chat_model: ChatModel,
        reference: Reference,
        *,
        layers: Sequence[int],
        schedule: ScheduleSettings,
        optimizer: Callable[..., Optimizer],
        alpha: float = 5.0,
        positions: Positions = "all",
        retention_weight: float = 1.0,
        step: StepSettings | None = None,
        packing: Packing = "off",
        identity: Mapping[str, str] | None = None,
    ) -> None:
        self.check_own(alpha=alpha, positions=positions, retention_weight=retention_weight)
        super().__init__(
            CircuitBreakerObjective(
                chat_model.model,
                reference,
                layers=sorted(layers),
                alpha=alpha,
                positions=positions,
                retention_weight=retention_weight,
                step=step,
                packing=packing,
            ),
            stages=make_stages(replace(schedule, order="joint", kl_threshold=inf), sorted(layers)),
            schedule=schedule,
            optimizer=optimizer,
            layers=layers,
            identity=identity,
        )

    @classmethod
    def check_own(cls, **own: Any) -> None:
        """See `StagedModule.check_own`."""
        for word in ("alpha", "retention_weight"):
            weight = own.get(word, 1.0)
            is_number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
            if not (is_number and 0 < weight < inf):
                raise UserError(f"method.{word}={weight} is not accepted. Accepted: a number > 0.")
        positions = own.get("positions", "all")
        if positions not in (accepted := get_args(Positions)):
            raise UserError(
                f"method.positions={positions} is not accepted. Accepted: {' | '.join(accepted)}."
            )

    def configure_model(self) -> None:
        """Refuse what cannot be sharded.

        Raises:
            UserError: A copied reference under FSDP: its states are read layer by layer, and only a
                whole sharded model can be called.
        """
        if isinstance(self.trainer.strategy, ShardedStrategy) and self.reference().root():
            raise UserError(
                "method=circuit_breakers with model.mode=full and trainer=fsdp: the states of a "
                "sharded copy cannot be read. Accepted: model.mode=lora, or trainer=ddp."
            )
        super().configure_model()

    def reference(self) -> Reference:
        """From whose states completions are turned away."""
        reference: Reference = self.objective.reference
        return reference

    def losses(self, batch: PairedBatch, *, read_all: bool = False) -> CircuitBreakerLosses:
        """Both losses of one batch, weighed by how far the training is."""
        running = self.running
        progress = running.steps / running.stage.budget(running.steps_per_epoch)
        losses: CircuitBreakerLosses = self.objective(batch, progress=progress)
        return losses

    def figures(self, losses: CircuitBreakerLosses) -> dict[str, Tensor]:
        """Both losses, before they are weighed."""
        return {
            "loss": losses.loss,
            "rerouting": losses.rerouting,
            "retention": losses.retention,
        }
