"""What the scaling benchmark found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from es2_lightning.training.scaling.predict import Prediction


@dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """Steps of one strategy on some processes.

    Attributes:
        strategy: `ddp` or `fsdp`.
        processes: How many shared the batch.
        tokens: Of the whole batch.
        seconds: Of each step, on the slowest process.
        alone_seconds: Of each step of the same work of each process without any other: whole
            weights, nothing sent; of the slowest process. Half of them before, half after.
        counted: Payload bytes of each kind of collective in one step, as torch ran them.
        predicted: The same in closed form.
    """

    strategy: str
    processes: int
    tokens: int
    seconds: tuple[float, ...]
    alone_seconds: tuple[float, ...]
    counted: Mapping[str, int]
    predicted: Mapping[str, int]

    @property
    def step_seconds(self) -> float:
        """The median."""
        return median(self.seconds)

    @property
    def step_seconds_alone(self) -> float:
        """The median."""
        return median(self.alone_seconds)

    @property
    def tokens_per_second(self) -> float:
        """Of all processes."""
        return self.tokens / self.step_seconds

    @property
    def communication_share(self) -> float:
        """Of a step's time, what it takes longer than the same work without others."""
        return 1 - self.step_seconds_alone / self.step_seconds


@dataclass(frozen=True, kw_only=True)
class ScalingResult:
    """Both halves of the table.

    Attributes:
        model: Shape that was measured.
        threads: CPU threads of each process.
        each: Harmless and harmful prompts of each device of a cluster.
        reference: `cached` or `adapter`.
        measured: None was run: empty.
        predicted: All clusters, models and strategies.
    """

    model: str
    threads: int
    each: tuple[int, int]
    reference: str
    measured: tuple[MeasuredRun, ...]
    predicted: tuple[Prediction, ...]
