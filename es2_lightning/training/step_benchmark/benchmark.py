"""The benchmark of a training step: what is set of it. Light to import."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from es2_lightning.errors import UserError
from es2_lightning.training.step_benchmark.ways import (
    OPTIONS,
    configured_way,
    cumulative_ways,
    option_ways,
)

if TYPE_CHECKING:
    import torch

    from es2_lightning.backbone.settings import ModelSettings
    from es2_lightning.prompts.prompt import PromptSplits
    from es2_lightning.training.settings import StepSettings
    from es2_lightning.training.step_benchmark.results import StepResult
    from es2_lightning.training.step_benchmark.ways import Way

Progress = Callable[[str, int, int], None]
"""Told what is done, how much of it, and of how much."""
KL_POSITIONS = ("all", "last")
LENGTHS = ("builtin", "data")


class StepBenchmark:
    """One step, computed in every way on the same random weights and tokens.

    Args:
        harmless: Harmless prompts in the batch.
        harmful: Harmful prompts in the batch.
        lengths: `builtin`, or `data`: those of the training prompts.
        prefix_tokens: That all prompts begin with; None: those of the chat template.
        layer: That is separated, 1 … L, or negative from the end; None: about L/3.
        kl_positions: Where the KL is taken: `all` or `last`.
        options: Of `OPTIONS`: each is tried on top of the config.
        rounds: All ways are timed in each.
        peak_tflops: Of the GPU, for MFU; None: by its name.
        seed: Of weights and tokens.

    Raises:
        UserError: A value is out of range.
    """

    def __init__(
        self,
        *,
        harmless: int = 50,
        harmful: int = 10,
        lengths: str = "builtin",
        prefix_tokens: int | None = None,
        layer: int | None = None,
        kl_positions: str = "all",
        options: Sequence[str] = (),
        rounds: int = 3,
        peak_tflops: float | None = None,
        seed: int = 0,
    ) -> None:
        least = {"harmless": (harmless, 1), "harmful": (harmful, 1), "rounds": (rounds, 1)}
        least |= {"seed": (seed, 0), "prefix_tokens": (prefix_tokens or 0, 0)}
        for name, (value, low) in least.items():
            if value < low:
                raise UserError(f"benchmark.{name}={value}: at least {low} is needed")
        for name, word, accepted in (
            ("lengths", lengths, LENGTHS),
            ("kl_positions", kl_positions, KL_POSITIONS),
        ):
            if word not in accepted:
                raise UserError(f"benchmark.{name}={word}: accepted are {', '.join(accepted)}")
        if unknown := [name for name in options if name not in OPTIONS]:
            raise UserError(
                f"benchmark.options: {unknown[0]} is none; accepted are {', '.join(OPTIONS)}"
            )
        if peak_tflops is not None and peak_tflops <= 0:
            raise UserError(f"benchmark.peak_tflops={peak_tflops}: more than 0 is needed")
        if layer == 0:
            raise UserError(
                "benchmark.layer=0: accepted are 1 … L, -1 … -L from the end, and null: about L/3"
            )
        self.harmless = harmless
        self.harmful = harmful
        self.lengths = lengths
        self.prefix_tokens = prefix_tokens
        self.layer = layer
        self.kl_positions = kl_positions
        self.options = tuple(options)
        self.rounds = rounds
        self.peak_tflops = peak_tflops
        self.seed = seed

    def layer_of(self, depth: int) -> int:
        """The layer that is separated in a model of L layers, 1 … L.

        Raises:
            UserError: It has no such layer.
        """
        if self.layer is None:
            return max(1, depth // 3)
        if not 1 <= abs(self.layer) <= depth:
            raise UserError(
                f"benchmark.layer={self.layer}: the model has {depth} layers; accepted are "
                f"1 … {depth}, -1 … -{depth} from the end, and null: about L/3"
            )
        return self.layer if self.layer > 0 else self.layer + depth + 1

    def __call__(
        self,
        settings: ModelSettings,
        *,
        shape: str | None,
        step: StepSettings,
        device: torch.device,
        splits: PromptSplits | None = None,
        progress: Progress = lambda _stage, _done, _of: None,
    ) -> StepResult:
        """Count all ways without memory, then run and time them, unless the device is `meta`.

        Args:
            settings: Of the model and its adapter.
            shape: Random weights of this shape in the model's place.
            step: Of the configured way.
            device: That the ways run on.
            splits: The prompts of `lengths=data`.
            progress: Told how far it is.

        Raises:
            UserError: The model is missing or cannot be loaded as was set, or has no such layer.
        """
        from es2_lightning.training.step_benchmark.comparison import compare_ways

        return compare_ways(
            self,
            settings,
            shape=shape,
            step=step,
            device=device,
            splits=splits,
            progress=progress,
        )

    def ways(self, step: StepSettings, settings: ModelSettings) -> list[Way]:
        """Yardsticks, optimisations one by one, the configured way, and that with each option."""
        cache = settings.reference_cache
        configured = configured_way(step, settings.reference, cache.hold)
        prompts = self.harmless + self.harmful
        return [
            *cumulative_ways(step),
            configured,
            *option_ways(self.options, configured, prompts=prompts),
        ]
