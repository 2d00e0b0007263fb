"""The benchmark of SCAV: the same outputs both ways, mistakes as sentences."""

from __future__ import annotations

import json

import pytest

from .conftest import Benchmark


def test_scav_gives_the_same_outputs_both_ways(
    benchmark: Benchmark, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = benchmark(
        "benchmark=scav", "benchmark.prompts=8", "benchmark.rounds=1", "benchmark.required=1"
    )
    found = json.loads((folder / "benchmark.json").read_text())
    assert (found["equal"], found["of"]) == (8, 8)
    assert found["ratios"] == [found["ratio"]] and found["ratio"] > 1 and found["met"]
    (fast,), (slow,) = found["rates"]["fast"], found["rates"]["slow"]
    assert fast / slow == pytest.approx(found["ratio"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "at least 1: reached" in shown and "8 of 8 outputs are the same" in shown


@pytest.mark.slow
def test_scav_is_ten_times_faster(benchmark: Benchmark) -> None:
    found = json.loads((benchmark("benchmark=scav", "threads=1") / "benchmark.json").read_text())
    assert found["of"] == 64 and found["required"] == 10 and found["met"], found["ratios"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["benchmark=scav", "benchmark.prompts=0"], "prompts=0: at least 1 is needed"),
        (["benchmark=scav", "+benchmark.foo=1"], "takes no foo"),
        (
            ["benchmark=scav", "device=meta"],
            "device=meta goes with benchmark=step and",
        ),
        (
            ["benchmark=scav", "model.shape=llama3_8b"],
            "goes with benchmark=step and",
        ),
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
    benchmark("benchmark=scav", "+data.source.test_per_kind=5", status=1)
    assert "the test split has 5 harmful prompts" in capsys.readouterr().err
