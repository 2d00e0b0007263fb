"""What a step's figures should reach, and whether they do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from es2_lightning.backbone.paired_timing import Clock
from es2_lightning.training.step_benchmark.results import StepResult
from es2_lightning.training.step_benchmark.ways import (
    CIRCUIT_BREAKERS,
    CONFIGURED,
    EVERYTHING,
    NAIVE,
)

OVER_FLOOR = {"all": 1.05, "last": 1.12}
"""By where the KL is taken: on last positions alone, little work is left beside the overhead."""
OVER_ABSOLUTE_FLOOR = 1.05
PUBLISHED = "llama3_8b"
"""The shape for which savings are required."""
NAIVE_FLOPS = {10: 3.0, 32: 2.8}
"""On that shape, by the separated layer."""
CIRCUIT_BREAKERS_FLOPS = {10: 3.2}
MEMORY = {"llama3_8b": 2.5, "small12_32k": 4.0}
CPU_TIME = 2.2
ERROR = 1e-6


@dataclass(frozen=True)
class Target:
    """A figure and its bound.

    Attributes:
        words: What the figure is.
        bound: That it should reach.
        at_most: Whether it should stay below it instead.
        figure: With everything on; None: it was not measured.
        configured: As the config sets it, where that has such a figure.
        reason: Why the target does not apply to this run.
    """

    words: str
    bound: float
    at_most: bool
    figure: float | None
    configured: float | None = None
    reason: str = ""

    @property
    def verdict(self) -> str:
        """PASS, FAIL or – (does not apply)."""
        if self.figure is None or self.reason:
            return "–"
        met = self.figure <= self.bound if self.at_most else self.figure >= self.bound
        return "PASS" if met else "FAIL"


def check_targets(result: StepResult) -> list[Target]:
    """All targets, those that do not apply to this run included."""
    return [*_floors(result), *_savings(result), *_times(result), *_errors(result)]


def _floors(result: StepResult) -> Iterator[Target]:
    bound = OVER_FLOOR[result.measured.kl_positions]
    for name, words in (
        ("e", "hidden-state cache, no prefix"),
        ("f", "hidden-state cache, prefix"),
        (EVERYTHING, "statistics cache, prefix"),
    ):
        yield Target(f"FLOPs / floor: {words}", bound, True, result.counted[name].over_floor)
    reason = _only_all(result)
    yield Target(
        "FLOPs / absolute floor",
        OVER_ABSOLUTE_FLOOR,
        True,
        result.over_absolute_floor(EVERYTHING),
        result.over_absolute_floor(CONFIGURED),
        reason,
    )


def _savings(result: StepResult) -> Iterator[Target]:
    measured = result.measured

    def flops(way: str) -> float:
        return result.counted[way].flops.total

    def memory(way: str) -> float:
        return result.counted[way].step_bytes or math.nan

    for words, slow, bounds in (
        ("FLOPs, naive / ours", NAIVE, NAIVE_FLOPS),
        ("FLOPs, circuit-breakers style / ours", CIRCUIT_BREAKERS, CIRCUIT_BREAKERS_FLOPS),
    ):
        layers = " or ".join(map(str, bounds))
        applies = measured.model == PUBLISHED and measured.layer in bounds
        reason = "" if applies else f"for model.shape={PUBLISHED}, layer {layers}"
        bound = bounds.get(measured.layer, min(bounds.values()))
        yield _saving(words, bound, flops, slow, reason or _only_all(result))
    reason = "" if measured.model in MEMORY else f"for the shapes {', '.join(MEMORY)}"
    bound = MEMORY.get(measured.model, min(MEMORY.values()))
    yield _saving("step memory, naive / ours", bound, memory, NAIVE, reason or _only_all(result))


def _saving(
    words: str, bound: float, size: Callable[[str], float], slow: str, reason: str
) -> Target:
    ratio = size(slow) / size(EVERYTHING)
    configured = size(slow) / size(CONFIGURED)
    return Target(words, bound, False, ratio, configured, reason)


def _times(result: StepResult) -> Iterator[Target]:
    timings = result.timings
    ran = set() if timings is None else timings.wall.keys()
    reason = _only_all(result)
    if result.measured.device != "cpu":
        reason = "for device=cpu"
    elif {NAIVE, EVERYTHING} - ran:
        reason = "one of the two did not run"
    clocks: tuple[tuple[Clock, str], ...] = (("cpu", "CPU seconds"), ("wall", "wall time"))
    for clock, words in clocks:
        saved = {
            way: timings.ratio(NAIVE, way, clock)
            for way in (EVERYTHING, CONFIGURED)
            if timings is not None and {NAIVE, way} <= ran
        }
        yield Target(
            f"{words} on a CPU, naive / ours",
            CPU_TIME,
            False,
            saved.get(EVERYTHING),
            saved.get(CONFIGURED),
            reason,
        )


def _errors(result: StepResult) -> Iterator[Target]:
    reason = "" if result.run else "nothing ran"
    if result.measured.dtype != "float32":
        reason = "for model.dtype=float32"
    elif result.measured.lora_dropout:
        reason = "for model.lora.lora_dropout=0"
    exact = [w.name for w in result.ways if w.exact and w.step is not None and w.name in result.run]
    for words, field in (("loss", "loss_error"), ("gradients", "gradient_error")):
        errors = {name: float(getattr(ran, field)) for name, ran in result.run.items()}
        applies = not reason and exact
        yield Target(
            f"{words} against naive, relative: the worst of all exact ways",
            ERROR,
            True,
            max(errors[name] for name in exact) if applies else None,
            errors.get(CONFIGURED) if applies else None,
            reason,
        )


def _only_all(result: StepResult) -> str:
    """Why a target that is set for the KL on all positions does not apply."""
    return "" if result.measured.kl_positions == "all" else "for benchmark.kl_positions=all"
