"""Several ways of doing the same work, timed in turns, so that a busy machine slows all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import torch

from es2_lightning.errors import UserError

Clock = Literal["wall", "cpu"]
"""Seconds that passed; and seconds that the process's threads worked, together."""


@dataclass(frozen=True)
class TurnTimings:
    """Seconds of each way, one figure for each round.

    Attributes:
        wall: Way to the seconds that passed.
        cpu: Way to the seconds that the CPU's threads worked, together.
    """

    wall: Mapping[str, tuple[float, ...]]
    cpu: Mapping[str, tuple[float, ...]]

    def seconds(self, way: str, clock: Clock = "wall") -> tuple[float, ...]:
        """A way's seconds, by round."""
        return (self.wall if clock == "wall" else self.cpu)[way]

    def ratios(self, slow: str, fast: str, clock: Clock = "wall") -> list[float]:
        """How many times faster one way was than another in the same round, by round."""
        pairs = zip(self.seconds(slow, clock), self.seconds(fast, clock), strict=True)
        return [s / f for s, f in pairs]

    def ratio(self, slow: str, fast: str, clock: Clock = "wall") -> float:
        """The median of the rounds' ratios."""
        return median(self.ratios(slow, fast, clock))


def time_in_turns(
    ways: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    warm_up: bool = True,
    after_each: Callable[[int, int], None] = lambda _done, _of: None,
) -> TurnTimings:
    """Time every way in every round; who goes first alternates.

    Args:
        ways: Name to what does the work once, in that way.
        rounds: How often each is timed.
        warm_up: Begin with a round that does not count; off where all ways have run already.
        after_each: Told how many turns are done, and of how many, after each of them.

    Raises:
        UserError: Fewer than one round.
    """
    if rounds < 1:
        raise UserError(f"rounds={rounds}: at least 1 is needed")
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    first = 0 if warm_up else 1
    done, of = 0, (rounds + 1 - first) * len(ways)
    for number in range(first, rounds + 1):
        order = list(ways.items())
        for name, work in order if number % 2 else reversed(order):
            passed, worked = _seconds(work)
            if number:
                wall[name].append(passed)
                cpu[name].append(worked)
            done += 1
            after_each(done, of)
    return TurnTimings(
        wall={name: tuple(seconds) for name, seconds in wall.items()},
        cpu={name: tuple(seconds) for name, seconds in cpu.items()},
    )


def _seconds(work: Callable[[], Any]) -> tuple[float, float]:
    _wait_for_the_device()
    start, worked = time.perf_counter(), time.process_time()
    work()
    _wait_for_the_device()
    return time.perf_counter() - start, time.process_time() - worked


def _wait_for_the_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
