"""The report of the scaling benchmark: tables, JSON and a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from es2_lightning.atomic_files import write_atomically
from es2_lightning.evaluation.results_files import as_json
from es2_lightning.reports.pictures import scaling as picture
from es2_lightning.reports.pictures.style import house_style, save
from es2_lightning.training.scaling.results import ScalingResult

GB = 1e9


def write_scaling_report(
    result: ScalingResult, folder: Path, *, console: Console | None = None
) -> Path:
    """Print the tables; write `benchmark.json` and `pictures/benchmark.png` into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "benchmark.json"
    write_atomically(path, json.dumps(scaling_record(result), indent=1) + "\n")
    with house_style():
        save(picture.draw(result), folder / "pictures" / "benchmark.png")
    (console or Console()).print(scaling_tables(result))
    return path


def scaling_tables(result: ScalingResult) -> RenderableType:
    """Measured, then predicted."""
    parts: list[RenderableType] = []
    if result.measured:
        parts += [measured_table(result), Text()]
    return Group(*parts, memory_table(result), Text(), time_table(result))


def scaling_record(result: ScalingResult) -> dict[str, Any]:
    """All figures as plain JSON."""
    record: dict[str, Any] = as_json(result)
    for run, found in zip(result.measured, record["measured"], strict=True):
        found["tokens_per_second"] = run.tokens_per_second
        found["communication_share"] = run.communication_share
    for prediction, found in zip(result.predicted, record["predicted"], strict=True):
        found["memory"]["total"] = prediction.memory.total
        found["fits"] = prediction.fits
        found["sent_bytes"] = prediction.communication.sent(prediction.cluster.devices)
        found["least_seconds"] = prediction.least_seconds
        found["most_seconds"] = prediction.most_seconds
    return record


def measured_table(result: ScalingResult) -> Table:
    """Of CPU processes."""
    tokens = result.measured[0].tokens
    table = _table(
        f"Measured: {result.model}, float32, {tokens} tokens a step, reference {result.reference}",
        f"CPU processes over gloo, {result.threads} thread(s) each, sharing one batch. Medians of "
        f"{len(result.measured[0].seconds)} steps. Communication: how much longer a step takes "
        "than the same processes at once with the same prompts, whole weights and nothing sent; "
        "waiting for each other and assembling weights are in it. MB a step: payloads of one "
        "process, counted / in closed form.",
        ("processes", "tokens/s", "ms a step", "alone", "communication", "MB a step"),
    )
    for run in result.measured:
        counted, predicted = (sum(x.values()) / 1e6 for x in (run.counted, run.predicted))
        table.add_row(
            run.strategy,
            str(run.processes),
            f"{run.tokens_per_second:.0f}",
            f"{1e3 * run.step_seconds:.0f}",
            f"{1e3 * run.step_seconds_alone:.0f}",
            "–" if run.processes == 1 else f"{run.communication_share:.0%}",
            "–" if run.processes == 1 else f"{counted:.2f} / {predicted:.2f}",
        )
    return table


def memory_table(result: ScalingResult) -> Table:
    """Of one device of each cluster."""
    harmless, harmful = result.each
    table = _table(
        "Predicted memory of a device, GB",
        f"{harmless} harmless and {harmful} harmful prompts on each device, weights in bf16, LoRA "
        "in float32. LoRA: with gradients and AdamW's moments. Gathered: FSDP2's whole blocks and "
        "root. Step: activations and the head's chunk. All: with a tenth for allocators and "
        f"kernels. Reference {result.reference}; host: the cache of one process.",
        ("", "weights", "LoRA", "gathered", "step", "all", "fits", "host"),
        groups=2,
    )
    for before, p in zip((None, *result.predicted), result.predicted, strict=False):
        if before is not None and (before.model, before.cluster) != (p.model, p.cluster):
            table.add_section()
        first = before is None or (before.model, before.cluster) != (p.model, p.cluster)
        m = p.memory
        step = m.activations + m.transient
        table.add_row(
            escape(p.model) if first else "",
            escape(p.cluster.name) if first else "",
            p.strategy,
            *(f"{x / GB:.2f}" for x in (m.weights, m.trained, m.unsharded, step)),
            f"{m.total / GB:.1f}",
            "yes" if p.fits else Text("no", style="bold red"),
            f"{m.host_cache / GB:.1f}",
        )
    return table


def time_table(result: ScalingResult) -> Table:
    """Of a step on each cluster."""
    table = _table(
        "Predicted time of a step, seconds",
        "Sent: GB that a device sends in a step. Step: with all communication hidden behind "
        "compute or the other way round, to one after the other. Tokens/s: of all devices, the "
        "lower end. In brackets: does not fit. Peaks, bandwidths and assumed shares of them: "
        "conf/benchmark/scaling.yaml; formulas: docs/scaling.md.",
        ("", "TFLOP", "sent", "compute", "comm.", "step", "tokens/s"),
        groups=2,
    )
    for before, p in zip((None, *result.predicted), result.predicted, strict=False):
        first = before is None or (before.model, before.cluster) != (p.model, p.cluster)
        if first and before is not None:
            table.add_section()
        step = f"{_digits(p.least_seconds)}–{_digits(p.most_seconds)}"
        speed = f"{p.tokens / p.most_seconds:,.0f}"
        table.add_row(
            escape(p.model) if first else "",
            escape(p.cluster.name) if first else "",
            p.strategy,
            f"{p.flops / 1e12:.1f}",
            _digits(p.communication.sent(p.cluster.devices) / GB),
            _digits(p.compute_seconds),
            _digits(p.communication_seconds),
            step if p.fits else f"({step})",
            speed if p.fits else f"({speed})",
        )
    return table


def _digits(value: float) -> str:
    """Two digits or more, at most three decimals."""
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _table(title: str, caption: str, columns: tuple[str, ...], *, groups: int = 0) -> Table:
    table = Table(
        title=escape(title),
        caption=escape(caption),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
        padding=(0, 0 if groups else 1),
        collapse_padding=True,
    )
    for _ in range(groups):
        table.add_column("", no_wrap=True)
    if not groups:
        table.add_column("", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    return table
