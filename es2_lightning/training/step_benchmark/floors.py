"""The least FLOPs of a step, for each way's options.

Without what nobody reads of a prompt's last block, which no way here leaves out: with the KL on
last positions alone that is several percent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from es2_lightning.training.cost.floor import absolute_floor_flops, floor_flops
from es2_lightning.training.cost.shapes import shape_of
from es2_lightning.training.cost.step_plan import LoraShape, StepPlan, batch_rows

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from es2_lightning.backbone.settings import LoraSettings
    from es2_lightning.training.step_benchmark.lengths import BatchLengths
    from es2_lightning.training.step_benchmark.ways import Way


class Floors:
    """Floors of one batch.

    Args:
        config: Of the model.
        lora: Of what trains.
        lengths: Of the prompts.
        layer: That is separated.
        kl_positions: `all` or `last`.
    """

    def __init__(
        self,
        config: PretrainedConfig,
        lora: LoraSettings,
        lengths: BatchLengths,
        *,
        layer: int,
        kl_positions: str,
    ) -> None:
        self._shape = shape_of(config)
        self._lora = LoraShape(lora.r, self._shape.adapted(lora.target_modules))
        self._prefix = lengths.prefix
        self._rows = batch_rows(
            lengths.harmless,
            lengths.harmful,
            layer=layer,
            num_layers=self._shape.num_layers,
            outputs=1 if kl_positions == "last" else None,
        )

    @property
    def absolute(self) -> int:
        """With everything on."""
        return absolute_floor_flops(
            self._shape, self._rows, prefix=self._prefix, lora=self._lora, strict=True
        ).total

    def of(self, way: Way) -> int | None:
        """With what a way's cache holds and its prefix; None: a yardstick."""
        if way.step is None:
            return None
        plan = StepPlan(
            prefix=0 if way.step.shared_prefix == "never" else self._prefix,
            hold="statistics" if way.hold == "statistics" else "hidden_states",
        )
        return floor_flops(self._shape, self._rows, plan, self._lora, strict=True).total
