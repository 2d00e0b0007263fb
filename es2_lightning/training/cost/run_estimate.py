"""What a training run will take, from counts: memory, FLOPs, and time at a measured rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from es2_lightning.training.cost.closed_form import forward_flops
from es2_lightning.training.cost.memory_estimate import MemoryEstimate, estimate_memory
from es2_lightning.training.cost.saved_tensors import Precision
from es2_lightning.training.cost.shapes import ModelShape
from es2_lightning.training.cost.step_flops import block_works, step_flops
from es2_lightning.training.cost.step_plan import LoraShape, RowShape, StepPlan

ON_TOP = 1.1
"""What allocators and kernels take on a GPU beside what tensors hold."""


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """All that an estimate depends on.

    Attributes:
        shape: Of the model.
        step: How a step is computed.
        lora: What trains; None: all weights.
        precision: How large numbers are, and on what kind of device.
        quantized: Whether the blocks' matrices are in 4 bits.
        batches: Some batches of the run; the depth of a prompt without outputs is the stage's.
        harmless: How many prompts of a batch, its first ones, are harmless.
        stages: Of each stage, its deepest layer and the most optimizer steps it takes.
        accumulate: Batches of an optimizer step.
        compared_rows: Prompts, all batches and validation together, whose outputs are compared.
        cache_on_disk: Whether a reference cache is in a folder rather than in memory.
    """

    shape: ModelShape
    step: StepPlan
    lora: LoraShape | None
    precision: Precision
    batches: Sequence[Sequence[RowShape]]
    harmless: int
    stages: Sequence[tuple[int, int]]
    compared_rows: int
    accumulate: int = 1
    quantized: bool = False
    cache_on_disk: bool = False

    def rows(self, batch: Sequence[RowShape], depth: int) -> list[RowShape]:
        """A batch as a stage computes it."""
        return [row if row.outputs else replace(row, depth=depth) for row in batch]

    @cached_property
    def stage_flops(self) -> tuple[float, ...]:
        """Of an optimizer step of each stage, on average over the batches."""
        flops = {depth: self._step_flops(depth) for depth in {d for d, _ in self.stages}}
        return tuple(flops[depth] for depth, _ in self.stages)

    def _step_flops(self, depth: int) -> float:
        totals = [
            step_flops(
                self.shape,
                self.rows(batch, depth),
                self.step,
                self.lora,
                trains_head=self.lora is None,
            ).total
            for batch in self.batches
        ]
        return self.accumulate * sum(totals) / len(totals)

    @cached_property
    def cache_flops(self) -> float:
        """Of computing the reference's outputs once, where they are cached."""
        if self.step.reference != "cached":
            return 0.0
        rows = [row for batch in self.batches for row in batch if row.outputs]
        exact = StepPlan(layout="exact")
        works = [w for row in rows for w in block_works([row], exact, depth=self.shape.num_layers)]
        mean = sum(forward_flops(self.shape, work) for work in works) / len(rows)
        return mean * self.compared_rows

    @cached_property
    def memory(self) -> MemoryEstimate:
        """Of the stage and the batch that take the most."""
        compared = [row.outputs for batch in self.batches for row in batch if row.outputs]
        positions = round(self.compared_rows * sum(compared) / len(compared))
        largest = max(self.batches, key=lambda batch: sum(row.tokens for row in batch))
        estimates = [
            estimate_memory(
                self.shape,
                self.rows(largest, depth),
                self.step,
                self.lora,
                precision=self.precision,
                quantized=self.quantized,
                cached_positions=positions,
            )
            for depth, _ in self.stages
        ]
        return max(estimates, key=lambda estimate: estimate.device)

    @property
    def device_bytes(self) -> int:
        """What the device must have free; a CPU, also for a cache in memory."""
        memory = self.memory
        if self.precision.device == "cpu":
            return memory.device + (0 if self.cache_on_disk else memory.host_cache)
        return int(ON_TOP * memory.device)

    @property
    def host_bytes(self) -> int:
        """What the host must have free beside a GPU."""
        on_cpu = self.precision.device == "cpu" or self.cache_on_disk
        return 0 if on_cpu else self.memory.host_cache


@dataclass(frozen=True)
class Remedy:
    """Something that takes less memory.

    Attributes:
        words: As it is set, such as `step.micro_batch=6`.
        device_bytes: What the device must have free then.
    """

    words: str
    device_bytes: int


@dataclass(frozen=True, kw_only=True)
class RunEstimate:
    """What a run will take on this machine.

    Attributes:
        plan: What was estimated.
        device: Its name.
        rate: FLOP/s that matrix products were measured at.
        free: Bytes that the device has free; None: not known.
        host_free: The same of the host.
        remedies: What takes less memory, where it is short.
        assumptions: What is not known yet, in words.
    """

    plan: RunPlan
    device: str
    rate: float
    free: int | None
    host_free: int | None
    remedies: tuple[Remedy, ...] = ()
    assumptions: tuple[str, ...] = ()

    @property
    def flops(self) -> float:
        """Of all steps and the cache: the most."""
        numbers = [steps for _, steps in self.plan.stages]
        of_steps = sum(n * f for n, f in zip(numbers, self.plan.stage_flops, strict=True))
        return of_steps + self.plan.cache_flops

    @property
    def seconds(self) -> float:
        """For `flops` at the measured rate: what else a step does comes on top."""
        return self.flops / self.rate

    @property
    def device_is_short(self) -> bool:
        """Whether the device's memory will not do."""
        return self.free is not None and self.plan.device_bytes > self.free

    @property
    def host_is_short(self) -> bool:
        """Whether the host's memory will not do for the cache."""
        return self.host_free is not None and self.plan.host_bytes > self.host_free
