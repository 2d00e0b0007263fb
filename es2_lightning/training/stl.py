"""STL: supervised fine-tuning on right answers and refusals (arXiv 2309.07875)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.optim import Optimizer

from es2_lightning.backbone.chat_model import ChatModel
from es2_lightning.backbone.head import logits_of
from es2_lightning.backbone.layouts import Packing
from es2_lightning.backbone.row_pass import run_rows
from es2_lightning.objectives.next_token import next_token_losses
from es2_lightning.training.across_ranks import mean_over_ranks
from es2_lightning.training.response_data import ResponseDataModule
from es2_lightning.training.row_objective import RowObjective
from es2_lightning.training.schedule import make_stages
from es2_lightning.training.settings import ScheduleSettings, StepSettings
from es2_lightning.training.staged_module import StagedModule

if TYPE_CHECKING:
    from es2_lightning.backbone.token_rows import TokenRow
    from es2_lightning.training.batches import PairedBatch


@dataclass(frozen=True)
class ResponseLosses:
    """Cross-entropy of one batch, of all ranks, nats per token; scalars.

    Attributes:
        loss: Over all tokens of all responses; what is minimised.
        answers: Over those of right answers.
        refusals: Over those of refusals.
    """

    loss: Tensor
    answers: Tensor
    refusals: Tensor


class ResponseObjective(RowObjective):
    """The mean cross-entropy of the responses' tokens, prompts left out; see `RowObjective`."""

    def forward(self, batch: PairedBatch) -> ResponseLosses:
        """The loss of a batch whose output positions predict the responses' tokens."""
        parts = batch.micro_batches(self.step.micro_batch)
        losses_E = torch.cat(
            [self._part([batch.rows[i] for i in part], recompute=len(parts) > 1) for part in parts]
        )
        harmful_E = torch.tensor(
            [
                batch.harmful[i]
                for part in parts
                for i in part
                for _ in batch.rows[i].output_positions
            ],
            device=losses_E.device,
        )
        mean = mean_over_ranks(losses_E)
        return ResponseLosses(
            # The value of the whole batch, with the gradient of this rank's share.
            loss=mean.share + (mean.value - mean.share).detach(),
            answers=mean_over_ranks(losses_E[~harmful_E].detach()).value,
            refusals=mean_over_ranks(losses_E[harmful_E].detach()).value,
        )

    def _part(self, rows: Sequence[TokenRow], *, recompute: bool) -> Tensor:
        layout = self.layout(rows)
        outputs = self.recomputed(run_rows, self.model, layout, recompute=recompute).outputs
        assert outputs is not None, "every row has a response"
        targets = [row.token_ids[t + 1] for row in rows for t in row.output_positions]
        return next_token_losses(
            outputs.index_select(0, layout.output_of),
            torch.tensor(targets, device=outputs.device),
            partial(logits_of, self.model),
            chunk=self.step.kl_chunk,
        )


class STLModule(StagedModule):
    """Safety-tuned LLaMAs: cross-entropy on general answers and on refusals of harmful prompts.

    One stage, without a threshold; the arguments are those of `ES2Module`.
    """

    data = ResponseDataModule

    def __init__(
        self,
        chat_model: ChatModel,
        *,
        schedule: ScheduleSettings,
        optimizer: Callable[..., Optimizer],
        step: StepSettings | None = None,
        packing: Packing = "off",
        identity: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            ResponseObjective(chat_model.model, step=step, packing=packing),
            stages=make_stages(replace(schedule, order="joint", kl_threshold=inf), layers=()),
            schedule=schedule,
            optimizer=optimizer,
            identity=identity,
        )

    def losses(self, batch: PairedBatch, *, read_all: bool = False) -> ResponseLosses:
        """Cross-entropy of one batch."""
        losses: ResponseLosses = self.objective(batch)
        return losses

    def figures(self, losses: ResponseLosses) -> dict[str, Tensor]:
        """Cross-entropy, also of answers and refusals apart."""
        return {
            "loss": losses.loss,
            "answer_loss": losses.answers,
            "refusal_loss": losses.refusals,
        }
