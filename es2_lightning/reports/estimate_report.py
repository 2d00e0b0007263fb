"""What a run will take, in two lines or as a table; and what to lower where memory is short."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from es2_lightning.training.cost.run_estimate import RunEstimate

BYTES = {"TiB": 2.0**40, "GiB": 2.0**30, "MiB": 2.0**20, "KiB": 2.0**10, "B": 1.0}
FLOPS = {"PFLOP": 1e15, "TFLOP": 1e12, "GFLOP": 1e9, "MFLOP": 1e6, "FLOP": 1.0}
SECONDS = {"days": 86400.0, "h": 3600.0, "min": 60.0, "s": 1.0}


def estimate_lines(estimate: RunEstimate) -> Iterator[str]:
    """In short, for the log."""
    plan, memory = estimate.plan, estimate.plan.memory
    steps = " + ".join(str(steps) for _, steps in plan.stages)
    cache = ", with the reference cache" if plan.step.reference == "cached" else ""
    yield (
        f"Estimate: at most {steps} steps, {_in(estimate.flops, FLOPS)}{cache}: "
        f"{_in(estimate.seconds, SECONDS)} at the {_in(estimate.rate, FLOPS)}/s that matrix "
        "products reach here, and what else a step does"
    )
    parts = {
        "weights": memory.weights,
        "reference": memory.reference,
        "adapter": memory.adapter,
        "gradients and optimizer": memory.gradients + memory.optimizer,
        "activations": memory.activations,
        "head and others": memory.transient,
    }
    told = ", ".join(f"{name} {_in(size, BYTES)}" for name, size in parts.items() if size)
    held = f"; reference cache {_in(memory.host_cache, BYTES)}" if memory.host_cache else ""
    free = "" if estimate.free is None else f"; {_in(estimate.free, BYTES)} are free"
    yield (
        f"Estimate: {_in(memory.device, BYTES)} on {estimate.device} while training ({told})"
        f"{held}{free}"
    )


def shortage(estimate: RunEstimate) -> Iterator[str]:
    """Which memory will not do and what to lower, in sentences; none where all fits."""
    plan = estimate.plan
    if estimate.device_is_short:
        assert estimate.free is not None
        yield (
            f"This will not fit: it needs {_in(plan.device_bytes, BYTES)} of {estimate.device}'s "
            f"memory, of which {_in(estimate.free, BYTES)} are free. "
            + _remedies(estimate, estimate.free)
        )
    if estimate.host_is_short:
        assert estimate.host_free is not None
        yield (
            f"The reference cache will not fit: it needs {_in(plan.host_bytes, BYTES)} of the "
            f"host's memory, of which {_in(estimate.host_free, BYTES)} are free. To lower it: "
            "model.reference_cache.folder=<a folder>, which keeps it on disk, or "
            "model.reference=adapter, which needs none."
        )


def estimate_table(estimate: RunEstimate) -> Table:
    """Memory, FLOPs and time, item by item."""
    plan, memory = estimate.plan, estimate.plan.memory
    table = Table(
        title="Estimate of a run",
        caption=escape(_caption(estimate)),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
        width=80,
    )
    table.add_column(f"memory of {escape(estimate.device)}", ratio=1)
    table.add_column("", justify="right", no_wrap=True)
    for words, size in (
        (f"weights ({plan.shape.parameters:,} parameters)", memory.weights),
        ("reference, a second copy", memory.reference),
        ("adapter", memory.adapter),
        ("gradients", memory.gradients),
        ("optimizer, AdamW's two moments", memory.optimizer),
        ("activations", memory.activations),
        ("at its most beside them: a chunk of the head, the reference", memory.transient),
        ("all", memory.device),
    ):
        table.add_row(words, _in(size, BYTES) if size else "none")
    if memory.host_cache:
        where = "on disk" if plan.cache_on_disk else "in the host's memory"
        table.add_row(f"reference cache, {where}", _in(memory.host_cache, BYTES))
    if estimate.free is not None:
        table.add_row("free now", _in(estimate.free, BYTES), style="bold")
    table.add_section()
    stages = zip(plan.stages, plan.stage_flops, strict=True)
    for number, ((depth, steps), flops) in enumerate(stages, start=1):
        words = f"stage {number}, through layer {depth}"
        table.add_row(f"{words}: FLOPs a step", _in(flops, FLOPS))
        table.add_row(f"{words}: steps, at most", f"{steps:,}")
    if plan.step.reference == "cached":
        table.add_row("the reference cache, once", _in(plan.cache_flops, FLOPS))
    table.add_row("all, at most", _in(estimate.flops, FLOPS))
    table.add_row("matrix products here, measured now", f"{_in(estimate.rate, FLOPS)}/s")
    table.add_row("time of the products, at most", _in(estimate.seconds, SECONDS), style="bold")
    if estimate.remedies:
        table.add_section()
        for remedy in estimate.remedies:
            table.add_row(f"with {escape(remedy.words)}", _in(remedy.device_bytes, BYTES))
    return table


def _caption(estimate: RunEstimate) -> str:
    plan = estimate.plan
    batches = len(plan.batches)
    said = [
        f"Counted from config.json and the lengths of {batches} batches of training prompts; "
        "memory of the longest of them. Measuring before and after, probes, and what a step does "
        "beside matrix products (norms, losses, Python) come on top; stages may end before their "
        "budgets do.",
        *(f"Taken for granted: {words}." for words in estimate.assumptions),
        *shortage(estimate),
    ]
    return " ".join(said)


def _remedies(estimate: RunEstimate, free: int) -> str:
    if not estimate.remedies:
        return "Accepted: a smaller model, or a larger device."
    words = [f"{one.words} ({_in(one.device_bytes, BYTES)})" for one in estimate.remedies]
    alone = any(one.device_bytes <= free for one in estimate.remedies)
    return f"To lower it{'' if alone else ', several of these'}: {', '.join(words)}."


def _in(value: float, units: Mapping[str, float]) -> str:
    """In the largest unit of which it holds one."""
    name, size = next(((n, s) for n, s in units.items() if value >= s), list(units.items())[-1])
    return f"{value / size:.3g} {name}"
