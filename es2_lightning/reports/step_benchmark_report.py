"""The report of a step's benchmark: tables, JSON and a picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, get_args

from rich.console import Console, Group, RenderableType
from rich.text import Text

from es2_lightning.atomic_files import write_atomically
from es2_lightning.backbone.paired_timing import Clock
from es2_lightning.evaluation.results_files import as_json
from es2_lightning.reports.pictures import step_cost as picture
from es2_lightning.reports.pictures.style import house_style, save
from es2_lightning.reports.step_tables import (
    accuracy_table,
    bytes_table,
    flops_table,
    gpu_table,
    measured_text,
    target_table,
    time_table,
    what_is_said,
)
from es2_lightning.training.step_benchmark.results import StepResult
from es2_lightning.training.step_benchmark.targets import check_targets
from es2_lightning.training.step_benchmark.ways import NAIVE

EPOCHS = (1, 3, 10)
"""Over which the cache's cost is spread."""


def write_step_report(result: StepResult, folder: Path, *, console: Console | None = None) -> Path:
    """Print the tables; write `benchmark.json` and `pictures/benchmark.png` into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "benchmark.json"
    write_atomically(path, json.dumps(step_record(result), indent=1) + "\n")
    with house_style():
        save(picture.draw(result), folder / "pictures" / "benchmark.png")
    (console or Console()).print(step_tables(result))
    return path


def step_tables(result: StepResult) -> RenderableType:
    """Everything that is told, targets last."""
    parts: list[RenderableType] = [
        measured_text(result),
        flops_table(result),
        bytes_table(result),
    ]
    if result.timings is not None:
        parts += [time_table(result), accuracy_table(result)]
    if result.measured.device == "cuda":
        parts.append(gpu_table(result))
    parts += [Text(sentence) for sentence in what_is_said(result, EPOCHS)]
    parts.append(target_table(check_targets(result)))
    return Group(*(part for one in parts for part in (one, Text())))


def step_record(result: StepResult) -> dict[str, Any]:
    """All figures as plain JSON, the ratios among them."""
    ways = {}
    for way in result.ways:
        counted = result.counted[way.name]
        figures = as_json(counted) | {
            "words": way.words.strip(),
            "kind": way.kind,
            "total_flops": counted.flops.total,
            "flops_saved": result.flops_saved(way.name),
            "over_floor": counted.over_floor,
            "over_absolute_floor": result.over_absolute_floor(way.name),
            "step_bytes_saved": result.step_bytes_saved(way.name),
        }
        if way.name in result.run:
            figures |= as_json(result.run[way.name]) | dict(_times(result, way.name))
        if way.name in result.failed:
            figures["failed"] = result.failed[way.name]
        ways[way.name] = figures
    lengths = result.measured.lengths
    return {
        "measured": as_json(result.measured)
        | {"tokens": lengths.tokens, "longest": lengths.longest, "fill": lengths.fill},
        "absolute_floor": result.absolute_floor,
        "kl": result.kl,
        "cache": as_json(result.cache),
        "peak_flops": result.peak_flops,
        "ways": ways,
        "targets": [as_json(t) | {"verdict": t.verdict} for t in check_targets(result)],
    }


def _times(result: StepResult, name: str) -> Iterator[tuple[str, Any]]:
    timings = result.timings
    if timings is None:
        return
    for clock in get_args(Clock):
        seconds = timings.seconds(name, clock)
        yield f"{clock}_seconds", list(seconds)
        yield f"{clock}_median", median(seconds)
        if NAIVE in timings.wall:
            yield f"{clock}_saved", timings.ratio(NAIVE, name, clock)
