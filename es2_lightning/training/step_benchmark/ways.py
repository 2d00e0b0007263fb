"""The ways of computing one and the same training step that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from es2_lightning.backbone.settings import ModelSettings
from es2_lightning.training.settings import StepSettings

Kind = Literal["yardstick", "cumulative", "configured", "option"]
"""As it is usually written; with one more optimisation than the one before; as the config has it;
and that with an option that may change the figures."""

NAIVE, CIRCUIT_BREAKERS, EVERYTHING, CONFIGURED = "naive", "cb", "g", "set"


@dataclass(frozen=True)
class Way:
    """How a step is computed.

    Attributes:
        name: Short, unique.
        words: What it is.
        kind: What it is there for.
        step: The settings of the training path; None: a yardstick, which is not that path.
        reference: `copy`, `adapter` or `cached`.
        hold: What a cached reference holds, `hidden_states` or `statistics`.
        autocast: Forward passes in bfloat16.
        checkpointing: Blocks are recomputed in the backward pass.
        exact: Whether it must give the naive figures to rounding.
    """

    name: str
    words: str
    kind: Kind
    step: StepSettings | None = None
    reference: str = "adapter"
    hold: str = "hidden_states"
    autocast: bool = False
    checkpointing: bool = False
    exact: bool = True

    @property
    def countable(self) -> bool:
        """Whether what it keeps in memory is seen without running it on a device."""
        return not self.autocast and not (self.step is not None and self.step.compile)

    def on_meta(self) -> Way:
        """The same work where there is neither a compiler nor autocast: on `meta`."""
        if self.step is None:
            return self
        return replace(self, autocast=False, step=replace(self.step, compile=False))


PLAIN = StepSettings(truncate=False, kl_chunk=None, packing="off", shared_prefix="never")
"""The training path with everything off."""

MICRO_BATCHES = 3
OPTIONS = ("micro_batches", "checkpointing", "autocast", "compile")
"""What `benchmark.options` may name."""


def cumulative_ways(default: StepSettings) -> list[Way]:
    """The yardsticks, and each optimisation on top of those before it.

    Args:
        default: Whose chunk size is taken.
    """
    truncated = replace(PLAIN, truncate=True)
    chunked = replace(truncated, kl_chunk=default.kl_chunk or StepSettings().kl_chunk)
    packed = replace(chunked, packing="auto")
    shared = replace(packed, shared_prefix="always")
    lean = replace(shared, lean_norms=True)
    return [
        Way(NAIVE, "naive", "yardstick", reference="copy"),
        Way(CIRCUIT_BREAKERS, "circuit-breakers style", "yardstick"),
        Way("a", "a. adapter-off reference", "cumulative", PLAIN),
        Way("b", "b. + truncated harmful", "cumulative", truncated),
        Way("c", "c. + cached reference", "cumulative", truncated, "cached"),
        Way("d", "d. + chunked head and KL", "cumulative", chunked, "cached"),
        Way("e", "e. + packing", "cumulative", packed, "cached"),
        Way("f", "f. + shared prefix", "cumulative", shared, "cached"),
        Way(EVERYTHING, "g. + statistics, lean norms", "cumulative", lean, "cached", "statistics"),
    ]


def configured_way(step: StepSettings, reference: str, hold: str) -> Way:
    """What a training run with this config computes."""
    standard = ModelSettings(name_or_path="")
    default = (step, reference, hold) == (
        StepSettings(),
        standard.reference,
        standard.reference_cache.hold,
    )
    words = "default settings" if default else "as configured"
    return Way(CONFIGURED, words, "configured", step, reference, hold)


def option_ways(names: Sequence[str], base: Way, *, prompts: int) -> list[Way]:
    """The configured way with one option each.

    Args:
        names: Of `OPTIONS`.
        base: The configured way.
        prompts: In the batch.
    """
    assert base.step is not None
    third = -(-prompts // MICRO_BATCHES)
    known = {
        "micro_batches": replace(
            base,
            words=f"  micro-batches of {third}",
            step=replace(base.step, micro_batch=third),
        ),
        "checkpointing": replace(base, words="  checkpointing", checkpointing=True),
        "autocast": replace(base, words="  bf16 autocast", autocast=True, exact=False),
        "compile": replace(
            base, words="  torch.compile on blocks", step=replace(base.step, compile=True)
        ),
    }
    return [replace(known[name], name=name, kind="option") for name in names]
