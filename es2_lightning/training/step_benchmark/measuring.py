"""Counts, runs and times all ways of a step."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from es2_lightning.backbone.paired_timing import TurnTimings, time_in_turns
from es2_lightning.training.cost.flops import count_flops
from es2_lightning.training.cost.memory import count_bytes
from es2_lightning.training.step_benchmark.results import CountedWay, RunWay
from es2_lightning.training.step_benchmark.ways import NAIVE, Way
from es2_lightning.training.step_benchmark.workbench import Outcome, Workbench

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Told what is done, how much of it, and of how much."""


def count(
    bench: Workbench,
    ways: Sequence[Way],
    *,
    vocab_size: int,
    floor_of: Callable[[Way], int | None],
    progress: Progress,
) -> dict[str, CountedWay]:
    """FLOPs and bytes of each way.

    Args:
        bench: On `meta`.
        ways: To be counted.
        vocab_size: V, by which the head is told apart.
        floor_of: The least FLOPs of a step with a way's options.
        progress: Told how many ways are done.
    """
    found = {}
    for i, way in enumerate(ways):
        bench.prepare(way)
        step = bench.step(way.on_meta())
        flops = count_flops(step, vocab_size=vocab_size)
        bench.forget_gradients()
        step_bytes = None
        if way.countable:
            step_bytes = count_bytes(step).peak
            bench.forget_gradients()
        found[way.name] = CountedWay(
            flops=flops,
            floor=floor_of(way),
            step_bytes=step_bytes,
            weight_bytes=bench.weight_bytes_of(way),
            cache_bytes=bench.cache_bytes_of(way),
        )
        progress("counting FLOPs and bytes", i + 1, len(ways))
    return found


def run(
    bench: Workbench, ways: Sequence[Way], counted: dict[str, CountedWay], *, progress: Progress
) -> tuple[dict[str, RunWay], dict[str, str], float | None]:
    """Run each way once, and compare what it gives with the naive one's.

    Returns:
        What each way gave; why others gave nothing; the naive KL, nats.
    """
    found: dict[str, RunWay] = {}
    failed: dict[str, str] = {}
    naive: Outcome | None = None
    for i, way in enumerate(ways):
        try:
            bench.prepare(way)
            before = _start_peak(bench.device)
            outcome = bench.outcome(way)
            peak = _peak(bench.device, before)
        except torch.OutOfMemoryError:
            failed[way.name] = "out of memory"
            _collect()
            continue
        except RuntimeError as error:
            if way.step is None or not way.step.compile:
                raise
            failed[way.name] = f"torch.compile failed ({str(error).strip().splitlines()[0]})"
            continue
        finally:
            progress("comparing losses and gradients", i + 1, len(ways))
        if way.name == NAIVE:
            naive = outcome
        kept = counted[way.name].weight_bytes + counted[way.name].cache_bytes
        found[way.name] = _compared(outcome, naive, None if peak is None else peak + kept)
    return found, failed, None if naive is None else float(naive.kl)


def time_ways(
    bench: Workbench, ways: Sequence[Way], *, rounds: int, progress: Progress
) -> TurnTimings:
    """Time ways that ran before, in turns."""
    return time_in_turns(
        {way.name: bench.step(way) for way in ways},
        rounds=rounds,
        warm_up=False,
        after_each=lambda done, of: progress("timing all ways in turns", done, of),
    )


def seconds_of(work: Callable[[], Any]) -> float:
    """That one call takes."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _compared(outcome: Outcome, naive: Outcome | None, peak: int | None) -> RunWay:
    if naive is None:
        nan = float("nan")
        return RunWay(nan, nan, nan, peak)
    return RunWay(
        loss_error=_relative([outcome.loss], [naive.loss]),
        kl_error=_relative([outcome.kl], [naive.kl]),
        gradient_error=_relative(outcome.gradients, naive.gradients),
        peak_bytes=peak,
    )


def _relative(got: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """‖got - wanted‖ / ‖wanted‖ over all tensors, in float64."""
    pairs = list(zip(got, wanted, strict=True))
    difference = sum(float((g.double() - w.double()).square().sum()) for g, w in pairs)
    size = sum(float(w.double().square().sum()) for _, w in pairs)
    return float((difference / size) ** 0.5)


def _start_peak(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    _collect()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _peak(device: torch.device, before: int) -> int | None:
    """The most that was allocated since, beyond what was allocated before."""
    if device.type != "cuda":
        return None
    return torch.cuda.max_memory_allocated(device) - before


def _collect() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
