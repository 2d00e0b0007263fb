"""What the step's benchmark found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from es2_lightning.training.step_benchmark.lengths import BatchLengths
from es2_lightning.training.step_benchmark.ways import NAIVE, Way

if TYPE_CHECKING:
    from es2_lightning.backbone.paired_timing import TurnTimings
    from es2_lightning.training.cost.flops import FlopCount


@dataclass(frozen=True)
class Measured:
    """The same work for all ways.

    Attributes:
        model: A shape's name, a Hub id or a folder.
        parameters: Of the model, without the adapter.
        trained: Of the adapter.
        lora_dropout: With it, ways draw random numbers of their own.
        dtype: Of the weights.
        depth: L.
        layer: That is separated.
        kl_positions: `all` or `last`.
        seed: Of weights and tokens.
        threads: Of the CPU.
        device: That the ways ran on; `meta`: they were only counted.
        device_name: Of a GPU.
        lengths: Of the batch's prompts.
    """

    model: str
    parameters: int
    trained: int
    lora_dropout: float
    dtype: str
    depth: int
    layer: int
    kl_positions: str
    seed: int
    threads: int
    device: str
    device_name: str | None
    lengths: BatchLengths


@dataclass(frozen=True)
class CountedWay:
    """What a way costs, counted without running it; the same on every machine.

    Attributes:
        flops: Forward, backward and head.
        floor: The least FLOPs of a step with the same options; None: a yardstick.
        step_bytes: The most that is alive at once beyond weights and cache; None: other kernels run
            than those that are counted.
        weight_bytes: Of all copies of the model, the adapter included.
        cache_bytes: Of what is cached of this batch's prompts.
    """

    flops: FlopCount
    floor: int | None
    step_bytes: int | None
    weight_bytes: int
    cache_bytes: int

    @property
    def over_floor(self) -> float | None:
        """FLOPs as a multiple of the floor of the same options."""
        return None if self.floor is None else self.flops.total / self.floor


@dataclass(frozen=True)
class RunWay:
    """What a way gave when it ran.

    Attributes:
        loss_error: Of the loss against the naive way's, relative.
        kl_error: Of its KL.
        gradient_error: Of the adapter's gradients, over all tensors.
        peak_bytes: On a GPU: the most that was allocated, with what the way needs of weights and
            cache.
    """

    loss_error: float
    kl_error: float
    gradient_error: float
    peak_bytes: int | None = None


@dataclass(frozen=True)
class CacheBuild:
    """What building the cache costs, for the harmless prompts of one batch.

    Attributes:
        flops: Of the reference's pass, counted.
        seconds: That it took; None: only counted.
        bytes_per_prompt: Of hidden states.
        statistics_bytes_per_prompt: Of sufficient statistics.
    """

    flops: int
    seconds: float | None
    bytes_per_prompt: float
    statistics_bytes_per_prompt: float


@dataclass(frozen=True)
class StepResult:
    """All figures of one run of the benchmark.

    Attributes:
        measured: What all ways computed.
        ways: In the order in which they are shown.
        counted: By a way's name.
        absolute_floor: FLOPs below which no way of computing the step can be.
        run: By a way's name; empty on `meta`.
        failed: Why a way did not run, by its name.
        timings: Of those that ran; None on `meta`.
        cache: What building it costs.
        kl: The naive way's KL, nats; None on `meta`.
        peak_flops: Of the GPU, per second, in the dtype of the weights; None: not known.
    """

    measured: Measured
    ways: tuple[Way, ...]
    counted: dict[str, CountedWay]
    absolute_floor: int
    cache: CacheBuild
    run: dict[str, RunWay] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    timings: TurnTimings | None = None
    kl: float | None = None
    peak_flops: float | None = None

    def flops_saved(self, name: str) -> float:
        """How many times fewer FLOPs a way takes than the naive one."""
        return self.counted[NAIVE].flops.total / self.counted[name].flops.total

    def over_absolute_floor(self, name: str) -> float:
        """A way's FLOPs as a multiple of the absolute floor."""
        return self.counted[name].flops.total / self.absolute_floor

    def step_bytes_saved(self, name: str) -> float | None:
        """How many times less memory a way's step takes; None: it is not known."""
        naive, own = self.counted[NAIVE].step_bytes, self.counted[name].step_bytes
        return None if naive is None or own is None else naive / own
