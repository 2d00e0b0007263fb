"""The tables of a step's benchmark; they fit into 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import get_args

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from es2_lightning.backbone.paired_timing import Clock
from es2_lightning.training.step_benchmark.results import StepResult
from es2_lightning.training.step_benchmark.targets import Target
from es2_lightning.training.step_benchmark.ways import EVERYTHING, NAIVE, Way

NONE = "–"
FLOP_UNITS = {"T": 1e12, "G": 1e9, "M": 1e6}
YARDSTICKS = (
    "Naive: two copies of the model, three full padded forwards, all hidden states, logits of all "
    "positions in float32. Circuit-breakers style: adapter off for the reference, four full padded "
    "forwards. a … g: the training path, each with one optimisation more."
)


def measured_text(result: StepResult) -> Text:
    """What was measured, in lines."""
    m = result.measured
    lengths = m.lengths
    where = m.device_name or {"meta": "meta: only counted"}.get(m.device, m.device)
    positions = "all positions" if m.kl_positions == "all" else "the last position"
    lines = [
        f"A training step: {m.model}, {_many(m.parameters)} parameters, {m.dtype}",
        f"  {m.depth} layers, separated at layer {m.layer}; KL on {positions}; LoRA of "
        f"{_many(m.trained)}",
        f"  device {where}; {m.threads} CPU threads; seed {m.seed}",
        f"  tokens: {sum(lengths.harmless)} of {len(lengths.harmless)} harmless prompts, "
        f"{sum(lengths.harmful)} of {len(lengths.harmful)} harmful; longest {lengths.longest},",
        f"    fill {lengths.fill:.2f} when padded to it, common prefix {lengths.prefix}",
        f"  lengths: {lengths.source}",
    ]
    return Text("\n".join(lines))


def flops_table(result: StepResult) -> Table:
    """Counted FLOPs, and their ratios to the naive way and to the floors."""
    naive = result.counted[NAIVE].flops.total
    scale, unit = _unit(naive, FLOP_UNITS)
    least = _number(result.absolute_floor / scale)
    table = _table(
        f"FLOPs, in {unit}FLOP",
        "Matrix products and attention, counted on meta tensors. Saved: naive / this. Floor of the "
        "same options (what is cached, KL positions, prefix): no padding, nothing twice, nothing "
        "that nobody reads. "
        f"Least: the absolute floor, with statistics and the prefix, {least}. {YARDSTICKS}",
        ("forward", "backward", "head", "total", "saved", "/floor", "/least"),
    )
    for way in _rows(table, result.ways):
        counted = result.counted[way.name]
        flops = counted.flops
        table.add_row(
            escape(way.words),
            *(_number(x / scale) for x in (flops.forward, flops.backward, flops.head, flops.total)),
            f"{result.flops_saved(way.name):.2f}×",
            NONE if counted.over_floor is None else f"{counted.over_floor:.3f}",
            f"{result.over_absolute_floor(way.name):.3f}",
        )
    return table


def bytes_table(result: StepResult) -> Table:
    """Counted bytes."""
    largest = max(c.step_bytes or c.weight_bytes for c in result.counted.values())
    scale, unit = _unit(largest, {"Gi": 2**30, "Mi": 2**20})
    table = _table(
        f"Memory, in {unit}B",
        "Step: the most alive at once beyond weights and cache, counted on meta tensors. Cache: of "
        "this batch's prompts. An optimizer's own comes on top. –: of kernels that meta tensors "
        "have not.",
        ("step", "saved", "weights", "cache", "together"),
    )
    for way in _rows(table, result.ways):
        c = result.counted[way.name]
        held = c.weight_bytes + c.cache_bytes
        saved = result.step_bytes_saved(way.name)
        table.add_row(
            escape(way.words),
            NONE if c.step_bytes is None else _number(c.step_bytes / scale),
            NONE if saved is None else f"{saved:.2f}×",
            _number(c.weight_bytes / scale),
            _number(c.cache_bytes / scale) if c.cache_bytes else NONE,
            NONE if c.step_bytes is None else _number((c.step_bytes + held) / scale),
        )
    return table


def time_table(result: StepResult) -> Table:
    """Paired medians with their spread."""
    timings = result.timings
    assert timings is not None
    rounds = len(next(iter(timings.wall.values())))
    longest = max(max(seconds) for seconds in timings.wall.values())
    scale, unit = (1.0, "Seconds") if longest >= 1 else (1e-3, "Milliseconds")
    table = _table(
        f"{unit} a step",
        f"Median [least–most] of {rounds} rounds, in each of which all ways ran. CPU: of all "
        "threads together. Saved: the median of the rounds' ratios to naive.",
        ("wall", "saved", "CPU", "saved"),
    )
    for way in _rows(table, result.ways):
        if way.name not in timings.wall:
            table.add_row(escape(way.words), result.failed.get(way.name, NONE))
            continue
        cells = []
        for clock in get_args(Clock):
            cells.append(_spread([t / scale for t in timings.seconds(way.name, clock)]))
            there = NAIVE in timings.wall
            cells.append(f"{timings.ratio(NAIVE, way.name, clock):.2f}×" if there else NONE)
        table.add_row(escape(way.words), *cells)
    return table


def accuracy_table(result: StepResult) -> Table:
    """Errors against the naive way."""
    kl = "" if result.kl is None else f" The naive KL is {result.kl:.3g} nats."
    drawn = result.measured.lora_dropout > 0
    dropout = " With LoRA dropout each way drew its own." if drawn else ""
    table = _table(
        "Relative error against naive",
        f"Gradients: of the adapter, over all tensors.{kl}{dropout}",
        ("loss", "KL", "gradients"),
    )
    for way in _rows(table, result.ways):
        if way.name == NAIVE or way.name not in result.run:
            continue
        r = result.run[way.name]
        errors = (r.loss_error, r.kl_error, r.gradient_error)
        table.add_row(escape(way.words), *(f"{error:.1e}" for error in errors))
    return table


def gpu_table(result: StepResult) -> Table:
    """Throughput, utilisation and peak memory."""
    timings, tokens = result.timings, result.measured.lengths.tokens
    assert timings is not None
    peak = result.peak_flops
    known = (
        f"MFU: the floor's FLOPs a second, of {peak / 1e12:.0f} TFLOP/s; HFU: those that the way "
        "itself computes."
        if peak
        else "MFU is not known for this GPU and dtype: benchmark.peak_tflops=<number> tells it."
    )
    table = _table(
        "On the GPU",
        f"Tokens: of the prompts, padding not counted. {known} Peak: what torch allocated.",
        ("tokens/s", "MFU", "HFU", "peak GiB"),
    )
    for way in _rows(table, result.ways):
        if way.name not in timings.wall:
            table.add_row(escape(way.words), result.failed.get(way.name, NONE))
            continue
        seconds = median(timings.seconds(way.name))
        allocated = result.run[way.name].peak_bytes
        shares = [NONE, NONE]
        if peak:
            useful = result.absolute_floor, result.counted[way.name].flops.total
            shares = [f"{flops / seconds / peak:.0%}" for flops in useful]
        table.add_row(
            escape(way.words),
            f"{tokens / seconds:,.0f}",
            *shares,
            NONE if allocated is None else f"{allocated / 2**30:.1f}",
        )
    return table


def target_table(targets: Sequence[Target]) -> Table:
    """Each target, its figure, and whether it is met."""
    table = Table(
        title="Targets",
        caption="Everything on (g), beside what the config sets. –: not of this run.",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
        padding=0,
    )
    table.add_column("")
    for name in ("target", "all on", "set"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for t in targets:
        words = t.words if not t.reason else f"{t.words} ({t.reason})"
        styles = {"FAIL": "bold red", "PASS": "bold"}
        table.add_row(
            escape(words),
            f"{'≤' if t.at_most else '≥'} {t.bound:g}",
            NONE if t.figure is None else _figure(t.figure),
            NONE if t.configured is None else _figure(t.configured),
            Text(t.verdict, style=styles.get(t.verdict, "")),
        )
    return table


def what_is_said(result: StepResult, epochs: Sequence[int]) -> Iterator[str]:
    """What the cache costs and is worth, and what does not fit into a table."""
    cache, naive = result.cache, result.counted[NAIVE].flops.total
    number = len(result.measured.lengths.harmless)
    scale, unit = _unit(cache.flops, FLOP_UNITS)
    took = "" if cache.seconds is None else f" in {cache.seconds:.2g} s"
    yield (
        f"The cache is built once, {_number(cache.flops / scale)} {unit}FLOP{took} for these "
        f"{number} harmless prompts. 10,000 of them take {_gib(cache.bytes_per_prompt)} GiB as "
        f"hidden states, {_gib(cache.statistics_bytes_per_prompt)} as statistics."
    )
    spread = ", ".join(
        f"{naive / (result.counted[EVERYTHING].flops.total + cache.flops / n):.2f}× over {n}"
        for n in epochs
    )
    yield (
        "FLOPs saved by everything on (g) with the building of the cache spread over the epochs, "
        f"in each of which every harmless prompt is met once: {spread}."
    )
    words = {way.name: way.words.strip() for way in result.ways}
    for name, reason in result.failed.items():
        yield f"{words[name]} did not run: {reason}."


def _table(title: str, caption: str, columns: Sequence[str]) -> Table:
    table = Table(
        title=title,
        caption=escape(caption),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
        padding=0,
    )
    table.add_column("", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _rows(table: Table, ways: Sequence[Way]) -> Iterator[Way]:
    """The ways, a line between those of different kinds."""
    before = None
    for way in ways:
        if before is not None and way.kind != before and "option" not in (way.kind, before):
            table.add_section()
        before = way.kind
        yield way


def _unit(value: float, units: Mapping[str, float]) -> tuple[float, str]:
    """The largest of the units of which the value has at least one."""
    name = next((n for n, size in units.items() if value >= size), [*units][-1])
    return units[name], name


def _gib(bytes_per_prompt: float) -> str:
    return _number(1e4 * bytes_per_prompt / 2**30)


def _many(number: float) -> str:
    scale, words = (1e9, "billion") if number >= 1e9 else (1e6, "million")
    return f"{_number(number / scale)} {words}"


def _number(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def _figure(value: float) -> str:
    return f"{value:.1e}" if 0 < value < 1e-3 else f"{value:.3f}"


def _spread(values: Sequence[float]) -> str:
    """The median with the least and the most, all with as many decimals."""
    middle = median(values)
    decimals = 2 if middle < 10 else 1 if middle < 100 else 0
    low, mid, high = (f"{x:.{decimals}f}" for x in (min(values), middle, max(values)))
    return escape(f"{mid} [{low}–{high}]")
