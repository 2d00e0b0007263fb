"""A made-up result of a step's benchmark, whose figures are easy to follow."""

from __future__ import annotations

from typing import Any

from es2_lightning.backbone.paired_timing import TurnTimings
from es2_lightning.training.cost.flops import FlopCount
from es2_lightning.training.settings import StepSettings
from es2_lightning.training.step_benchmark.lengths import built_in_lengths
from es2_lightning.training.step_benchmark.results import (
    CacheBuild,
    CountedWay,
    Measured,
    RunWay,
    StepResult,
)
from es2_lightning.training.step_benchmark.ways import configured_way, cumulative_ways

FLOPS = {"naive": 400, "cb": 425, "a": 380, "b": 370, "c": 300, "d": 290, "e": 180, "f": 110}
"""In units of 1e10; the others take 102. The floor is 100."""


def step_result(*, device: str = "cpu", error: float = 1e-7, **changed: Any) -> StepResult:
    """Two rounds, in which naive took 4 and 6 seconds, everything else 2."""
    step = StepSettings()
    ways = (*cumulative_ways(step), configured_way(step, "adapter", "hidden_states"))
    counted = {}
    for way in ways:
        total = FLOPS.get(way.name, 102) * 10**10
        counted[way.name] = CountedWay(
            flops=FlopCount(total // 2, total // 4, total // 4),
            floor=None if way.step is None else 10**12,
            step_bytes=total // 100,
            weight_bytes=2**30,
            cache_bytes=2**20 if way.reference == "cached" else 0,
        )
    measured: dict[str, Any] = {
        "model": "small12_32k",
        "parameters": 68_000_000,
        "trained": 172_032,
        "lora_dropout": 0.0,
        "dtype": "float32",
        "depth": 12,
        "layer": 4,
        "kl_positions": "all",
        "seed": 0,
        "threads": 2,
        "device": device,
        "device_name": "NVIDIA H100 80GB HBM3" if device == "cuda" else None,
        "lengths": built_in_lengths(harmless=50, harmful=10),
    }
    seconds = {w.name: (4.0, 6.0) if w.name == "naive" else (2.0, 2.0) for w in ways}
    return StepResult(
        measured=Measured(**(measured | changed)),
        ways=ways,
        counted=counted,
        absolute_floor=10**12,
        cache=CacheBuild(10**11, 0.5, 2e4, 3e4),
        run={w.name: RunWay(0.0, 0.0, error, 2**31) for w in ways} if device != "meta" else {},
        timings=TurnTimings(wall=seconds, cpu=seconds) if device != "meta" else None,
        kl=0.04,
        peak_flops=989e12 if device == "cuda" else None,
    )
