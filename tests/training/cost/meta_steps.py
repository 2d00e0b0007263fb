"""Real training steps, of models without memory unless asked otherwise, and what describes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM

from es2_lightning.backbone.adapters import add_lora
from es2_lightning.backbone.checkpointing import enable_checkpointing
from es2_lightning.backbone.head import linear_head
from es2_lightning.backbone.head_statistics import HeadStatistics
from es2_lightning.backbone.lean_norms import make_norms_lean
from es2_lightning.backbone.reference import HiddenOutputs, forward_outputs
from es2_lightning.backbone.token_rows import TokenRow
from es2_lightning.training.batches import PairedBatch
from es2_lightning.training.cost.named_shapes import to_config
from es2_lightning.training.cost.shapes import ModelShape
from es2_lightning.training.cost.step_plan import LoraShape, RowShape, StepPlan, batch_rows
from es2_lightning.training.objective import ES2Objective
from es2_lightning.training.settings import LossSettings, StepSettings


@dataclass
class _Reference:
    outputs: Any


@dataclass
class MetaStep:
    """One step, and its closed form's arguments.

    Attributes:
        targets: LoRA's target modules; None: all weights train.
        outputs: Positions of a harmless prompt at which the KL is taken; None: all.
        common: Tokens that all prompts begin with.
    """

    shape: ModelShape
    harmless: Sequence[int]
    harmful: Sequence[int]
    layer: int
    plan: StepPlan
    targets: str | Sequence[str] | None = ("q_proj", "v_proj")
    r: int = 8
    outputs: int | None = None
    common: int = 0
    dtype: torch.dtype = torch.float32
    dropout: float = 0.0
    device: str = "meta"

    def __post_init__(self) -> None:
        with torch.device(self.device):
            self.base = AutoModelForCausalLM.from_config(to_config(self.shape), dtype=self.dtype)
            model: Any = AutoModelForCausalLM.from_config(to_config(self.shape), dtype=self.dtype)
            if self.targets is not None:
                model = add_lora(
                    model, r=self.r, lora_dropout=self.dropout, target_modules=self.targets
                )
        if self.plan.lean_norms:
            make_norms_lean(model)
        if self.plan.checkpointing:
            enable_checkpointing(model)
        self.model = model.train()
        plan = self.plan
        self.objective = ES2Objective(
            model,
            cast(Any, _Reference(self._reference)),
            layers=[self.layer],
            settings=LossSettings(distance_unit="raw"),
            step=StepSettings(
                truncate=plan.truncate,
                kl_chunk=plan.kl_chunk,
                shared_prefix="always" if plan.prefix else "never",
                micro_batch=plan.micro_batch,
                lean_norms=plan.lean_norms,
            ),
            packing=cast(Any, plan.layout),
        )
        lengths = [*self.harmless, *self.harmful]
        self.batch = PairedBatch(
            tuple(
                TokenRow(
                    # Behind what all begin with no token is another row's.
                    tuple(range(self.common)) + (i + self.common,) * (length - self.common),
                    length - 1,
                    self._outputs(length) if i < len(self.harmless) else (),
                )
                for i, length in enumerate(lengths)
            ),
            (False,) * len(self.harmless) + (True,) * len(self.harmful),
        )

    def _outputs(self, length: int) -> tuple[int, ...]:
        first = 0 if self.outputs is None else max(0, length - self.outputs)
        return tuple(range(first, length))

    def _reference(self, rows: Sequence[TokenRow]) -> HiddenOutputs | HeadStatistics:
        """As a reference of the planned kind."""
        if self.plan.reference != "cached":
            return forward_outputs(self.base, rows, packing=cast(Any, self.plan.layout))
        entries, width = sum(len(row.output_positions) for row in rows), self.shape.hidden_size
        states = torch.zeros(entries, width, device=self.device, dtype=self.dtype)
        if self.plan.hold == "hidden_states":
            head = linear_head(self.model)
            assert head is not None
            return HiddenOutputs(states, head)
        return HeadStatistics(
            torch.zeros(entries, device=self.device, dtype=torch.float64), states.float()
        )

    def __call__(self) -> None:
        self.objective(self.batch, [self.layer]).loss.backward()

    @property
    def rows(self) -> tuple[RowShape, ...]:
        return batch_rows(
            self.harmless,
            self.harmful,
            layer=self.layer,
            num_layers=self.shape.num_layers,
            outputs=self.outputs,
        )

    @property
    def lora(self) -> LoraShape | None:
        if self.targets is None:
            return None
        return LoraShape(self.r, self.shape.adapted(self.targets), dropout=self.dropout > 0)
