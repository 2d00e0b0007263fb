"""The benchmark command: both ways in turns, the same outputs, mistakes as sentences."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from es2_lightning.backbone.paired_timing import TurnTimings, time_in_turns
from es2_lightning.errors import UserError

from ..commands import run_command

Benchmark = Callable[..., Path]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Benchmark:
    """Runs the command with these words in an empty folder; gives the run's folder."""
    from es2_lightning.benchmark import main

    monkeypatch.chdir(tmp_path)

    def run(*words: str, status: int = 0) -> Path:
        run_command(main, *words, monkeypatch=monkeypatch, status=status)
        if status:
            return tmp_path
        (folder,) = tmp_path.glob("outputs/*/")
        return folder

    return run


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


def test_scav_gives_the_same_outputs_both_ways(
    benchmark: Benchmark, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = benchmark("benchmark.prompts=8", "benchmark.rounds=1", "benchmark.required=1")
    found = json.loads((folder / "benchmark.json").read_text())
    assert (found["equal"], found["of"]) == (8, 8)
    assert found["ratios"] == [found["ratio"]] and found["ratio"] > 1 and found["met"]
    (fast,), (slow,) = found["rates"]["fast"], found["rates"]["slow"]
    assert fast / slow == pytest.approx(found["ratio"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "at least 1: reached" in shown and "8 of 8 outputs are the same" in shown


@pytest.mark.slow
def test_scav_is_ten_times_faster(benchmark: Benchmark) -> None:
    found = json.loads((benchmark("threads=1") / "benchmark.json").read_text())
    assert found["of"] == 64 and found["required"] == 10 and found["met"], found["ratios"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["benchmark=nosuch"], "benchmark has no choice nosuch"),
        (["benchmark.prompts=0"], "prompts=0: at least 1 is needed"),
        (["+benchmark.foo=1"], "takes no foo"),
        (["loss=paper"], "takes no choice of loss"),
        (["threads=0"], "threads=0 is not accepted"),
    ],
)
def test_a_mistake_is_a_sentence(
    benchmark: Benchmark, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    benchmark(*words, status=2)
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_too_few_prompts_are_a_sentence(
    benchmark: Benchmark, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark("+data.source.test_per_kind=5", status=1)
    assert "the test split has 5 harmful prompts" in capsys.readouterr().err
