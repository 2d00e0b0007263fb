"""A benchmark's result as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from es2_lightning.atomic_files import write_atomically
from es2_lightning.evaluation.results_files import as_json

if TYPE_CHECKING:
    from es2_lightning.evaluation.scav_benchmark import BenchmarkResult


def write_benchmark_report(
    result: BenchmarkResult, folder: Path, *, console: Console | None = None
) -> Path:
    """Print the table, and write `benchmark.json` into the folder."""
    record: dict[str, Any] = as_json(result) | {
        "rates": {way: result.rates(way) for way in ("fast", "slow")},
        "ratio": result.ratio,
        "ratios": result.timings.ratios("slow", "fast"),
        "met": result.met,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "benchmark.json", json.dumps(record, indent=1) + "\n")
    (console or Console()).print(benchmark_table(result))
    return folder / "benchmark.json"


def benchmark_table(result: BenchmarkResult) -> Table:
    """Both rates, and their ratio against what is required."""
    rounds = len(result.rates("fast"))
    table = Table(
        title=f"Benchmark {escape(result.name)}: {escape(result.unit)}",
        caption=escape(
            f"Median [least–most] of {rounds} rounds; both were timed in every round, on "
            f"{result.threads} CPU threads. The ratio is the median of the rounds' ratios. "
            f"{result.equal} of {result.of} outputs are the same both ways."
        ),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
    )
    table.add_column("way")
    table.add_column("measured", justify="right", no_wrap=True)
    for words, rates in (
        (result.fast, result.rates("fast")),
        (result.slow, result.rates("slow")),
    ):
        table.add_row(escape(words), _spread(rates, ".0f"))
    table.add_section()
    verdict = "reached" if result.met else "missed"
    table.add_row(
        f"ratio (at least {result.required:g}: {verdict})",
        _spread(result.timings.ratios("slow", "fast"), ".1f"),
        style="bold" if result.met else "bold red",
    )
    return table


def _spread(values: Any, show: str) -> str:
    text = f"{median(values):{show}} [{min(values):{show}}–{max(values):{show}}]"
    return escape(text)
