"""ES2's loss on one batch: separation of hidden states, held to the frozen reference by KL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from es2_lightning.backbone.hidden_states import last_token_states
from es2_lightning.backbone.layouts import Layout, Packing
from es2_lightning.backbone.packing_choice import rows_can_end
from es2_lightning.backbone.row_pass import RowStates, run_rows
from es2_lightning.backbone.structure import find_structure
from es2_lightning.errors import UserError
from es2_lightning.objectives.kl import mean_by_row
from es2_lightning.objectives.separation import mean_norm, mean_pairwise_distance
from es2_lightning.training.across_ranks import (
    mean_over_ranks,
    number_of_ranks,
    states_of_all_ranks,
)
from es2_lightning.training.output_kl import output_kl
from es2_lightning.training.row_objective import RowObjective

if TYPE_CHECKING:
    from es2_lightning.backbone.reference import Reference
    from es2_lightning.backbone.token_rows import TokenRow
    from es2_lightning.prompts.prompt import PromptSet
    from es2_lightning.training.batches import PairedBatch
    from es2_lightning.training.settings import LossSettings, StepSettings

MOST_PROMPTS_FOR_NORMS = 256
"""Of each class. A mean norm needs no more, and a large data set should not delay the start."""


@dataclass(frozen=True)
class Losses:
    """The terms of one batch, of all ranks; scalars but for the states.

    Attributes:
        loss: What is minimised; its gradient, averaged over the ranks, is that of the whole batch.
        kl: L_KL, the mean over harmless prompts, nats.
        harmful_kl: The mean over harmful prompts with a refusal, nats; 0 where there are none.
        refused: How many harmful prompts have a refusal.
        distances: Mean pairwise distance at each layer of the stage, in the configured unit.
        harmless_states: Layer to (M, D), at each prompt's last token, for each layer that was read.
        harmful_states: Layer to (N, D).
    """

    loss: Tensor
    kl: Tensor
    harmful_kl: Tensor
    refused: int
    distances: dict[int, Tensor]
    harmless_states: dict[int, Tensor]
    harmful_states: dict[int, Tensor]


class ES2Objective(RowObjective):
    """L = -separation_weight · distance + kl_weight · KL + harmful_kl_weight · KL_harmful.

    ES2, arXiv 2603.20206, section 4; the last term is this project's own. All of a step, the
    reference's part included, happens inside this module's forward.

    Args:
        model: The causal LM that is trained, its adapter included.
        reference: The frozen reference.
        layers: The layer set, 1 … L.
        settings: Weights and units.
        step: How it is computed; no choice changes what is computed.
        packing: How passes are laid out: what `step.packing` came to for this model.
        after_final_norm: Whether layer L is read after the final norm.

    Attributes:
        base_norms: Layer to the reference's mean state norm; what `measure_base_norms` found, or a
            checkpoint held.
    """

    def __init__(
        self,
        model: Any,
        reference: Reference,
        *,
        layers: Sequence[int],
        settings: LossSettings,
        step: StepSettings | None = None,
        packing: Packing = "off",
        after_final_norm: bool = False,
    ) -> None:
        super().__init__(model, step=step, packing=packing)
        self.reference = reference
        self.layers = list(layers)
        self.settings = settings
        self.after_final_norm = after_final_norm
        self.base_norms: dict[int, float] = {}
        self._depth = len(find_structure(model).blocks)

    def forward(
        self, batch: PairedBatch, layers: Sequence[int], *, read_all: bool = False
    ) -> Losses:
        """All terms of a batch, with gradients where they are enabled.

        Args:
            batch: N harmful and M harmless prompts.
            layers: The layers that are separated.
            read_all: Read the states of the whole layer set; otherwise, where `step.truncate` is
                on, only of those of its layers that are not above the separated ones.

        Raises:
            UserError: What trains has no influence on one of the layers.
        """
        every = read_all or not self.step.truncate
        read = [layer for layer in self.layers if every or layer <= max(layers)]
        kl_B, states = self._rows(batch, read)
        for layer in layers:
            if torch.is_grad_enabled() and not states[layer].requires_grad:
                raise UserError(
                    f"layers: layer {layer} cannot be separated, since no trainable weight stands "
                    "before it: choose deeper layers, or let model.lora cover earlier ones"
                )
        num_harmless = batch.harmful.index(True)
        refused = [
            i for i, row in enumerate(batch.rows) if batch.harmful[i] and row.output_positions
        ]
        kl = mean_over_ranks(kl_B[:num_harmless])
        harmful_kl = mean_over_ranks(kl_B[refused])
        harmless_states = {layer: h[:num_harmless] for layer, h in states.items()}
        harmful_states = {layer: h[num_harmless:] for layer, h in states.items()}
        ranks = 1
        if self.settings.gather_pairs:
            # Each rank differentiates for its own states, and the trainer averages over ranks.
            ranks = number_of_ranks()
            harmless_states = states_of_all_ranks(harmless_states)
            harmful_states = states_of_all_ranks(harmful_states)
        distances = {
            layer: mean_pairwise_distance(harmful_states[layer], harmless_states[layer])
            / self._unit(layer)
            for layer in layers
        }
        settings = self.settings
        # Over several layers the mean: the weights keep their meaning whatever their number.
        separation = mean_over_ranks(torch.stack(list(distances.values())).mean()[None])
        share = (
            -settings.separation_weight * ranks * separation.share
            + settings.kl_weight * kl.share
            + settings.harmful_kl_weight * harmful_kl.share
        )
        loss = (
            -settings.separation_weight * separation.value
            + settings.kl_weight * kl.value
            + settings.harmful_kl_weight * harmful_kl.value
        )
        return Losses(
            # The value of the whole batch, with the gradient of this rank's share.
            loss=share + (loss - share).detach(),
            kl=kl.value,
            harmful_kl=harmful_kl.value,
            refused=harmful_kl.count,
            distances=distances,
            harmless_states=harmless_states,
            harmful_states=harmful_states,
        )

    def _rows(self, batch: PairedBatch, read: Sequence[int]) -> tuple[Tensor, dict[int, Tensor]]:
        """KL of each row of the batch, (B,), and the states of each layer, (B, D)."""
        parts = batch.micro_batches(self.step.micro_batch)
        outputs = [
            self._part([batch.rows[i] for i in part], read, recompute=len(parts) > 1)
            for part in parts
        ]
        numbers = [i for part in parts for i in part]
        order = torch.tensor(sorted(range(len(numbers)), key=numbers.__getitem__))
        if len(parts) == 1:
            return outputs[0]
        kl_B = torch.cat([kl for kl, _ in outputs])
        order = order.to(kl_B.device)
        states = {layer: torch.cat([s[layer] for _, s in outputs])[order] for layer in read}
        return kl_B[order], states

    def _part(
        self, rows: Sequence[TokenRow], read: Sequence[int], *, recompute: bool
    ) -> tuple[Tensor, dict[int, Tensor]]:
        layout = self.layout(
            rows,
            drop=self.step.truncate
            and max(read) < self._depth
            and rows_can_end(self.model, self.packing),
        )
        # Only the blocks are recomputed: what passes the head keeps no more than its own width.
        found = self.recomputed(self._run, layout, read, recompute=recompute)
        if found.outputs is None:
            return next(iter(found.layers.values())).new_zeros(len(rows)), found.layers
        reference = self.reference.outputs(rows).select(layout.first_output)
        kl_U = output_kl(
            self.model,
            found.outputs,
            reference,
            chunk=self.step.kl_chunk,
            compiled=self.step.compile,
        )
        kl_E = kl_U.index_select(0, layout.output_of)
        return mean_by_row(kl_E, layout.output_row, layout.outputs_per_row), found.layers

    def _run(self, layout: Layout, read: Sequence[int]) -> RowStates:
        return run_rows(
            self.model,
            layout,
            layers=read,
            after_final_norm=self.after_final_norm,
            truncate=self.step.truncate,
        )

    def _unit(self, layer: int) -> float:
        return self.base_norms[layer] if self.settings.distance_unit == "base_norm" else 1.0

    def measure_base_norms(self, prompts: PromptSet) -> None:
        """Measure the reference's mean state norm at each layer: the unit of the distances."""
        # The two classes weigh the same, whatever their numbers.
        size = min(len(prompts.harmful), len(prompts.harmless), MOST_PROMPTS_FOR_NORMS)
        some = (*prompts.harmful[:size], *prompts.harmless[:size])
        with self.reference.chat_model() as reference:
            states = last_token_states(
                reference, some, self.layers, after_final_norm=self.after_final_norm
            )
        self.base_norms = {
            layer: float(mean_norm(states[:, i])) for i, layer in enumerate(self.layers)
        }
