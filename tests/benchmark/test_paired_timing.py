"""Several ways in turns: which are timed, in which order, on which clock."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from es2_lightning.backbone.paired_timing import TurnTimings, time_in_turns
from es2_lightning.errors import UserError


def test_both_are_timed_in_every_round_and_take_turns_at_going_first() -> None:
    order: list[str] = []

    def work(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            order.append(name)
            time.sleep(seconds)

        return run

    ways = {"fast": work("fast", 0.01), "slow": work("slow", 0.03)}
    timings = time_in_turns(ways, rounds=3)
    assert len(timings.seconds("fast")) == len(timings.seconds("slow", "cpu")) == 3
    assert order == ["slow", "fast", "fast", "slow"] * 2, "the first round does not count"
    assert timings.ratio("slow", "fast") == pytest.approx(3, rel=0.3)
    assert min(timings.seconds("fast")) >= 0.01
    assert max(timings.seconds("slow", "cpu")) < 0.03, "who sleeps does not work"
    with pytest.raises(UserError, match="rounds=0"):
        time_in_turns(ways, rounds=0)


def test_ways_that_ran_before_need_no_warm_up() -> None:
    told: list[tuple[int, int]] = []
    ways = {name: lambda: None for name in "abc"}
    timings = time_in_turns(
        ways, rounds=2, warm_up=False, after_each=lambda done, of: told.append((done, of))
    )
    assert told == [(n, 6) for n in range(1, 7)]
    assert {name: len(seconds) for name, seconds in timings.wall.items()} == dict.fromkeys(ways, 2)


def test_the_ratio_is_the_median_of_the_rounds_ratios() -> None:
    seconds = {"slow": (10.0, 30.0, 12.0), "fast": (1.0, 1.0, 2.0)}
    timings = TurnTimings(wall=seconds, cpu={"slow": (4.0, 4.0, 4.0), "fast": (2.0, 1.0, 4.0)})
    assert timings.ratios("slow", "fast") == [10, 30, 6]
    assert timings.ratio("slow", "fast") == 10
    assert timings.ratio("slow", "fast", "cpu") == 2
