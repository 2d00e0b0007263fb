"""A sweep as CSV and as tables on the terminal."""

from __future__ import annotations

import contextlib
import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from es2_lightning.evaluation.headline_figures import FIGURES, RESULTS
from es2_lightning.reports.cells import NOT_MEASURED, figure, wrapped
from es2_lightning.reports.sweep_rows import SettingRow, Spread, SweepRow, pareto_front

ABOUT = ("job", "status", "overrides", "layers", "kl_weight", "seed")
AFTER = ("steps", "stage_ends", "seconds", "error", "folder")
COLUMNS = (*ABOUT, *FIGURES, *AFTER)
SHOWN = ("scav_dsr", "scav_dsr_at_base_budget", "half_yield_ratio", "capability_kept",
         "over_refusal", "kl")  # fmt: skip
"""Figures on the terminal; the CSV has all."""
VALUES_WIDTH, LAYERS_WIDTH = 22, 7
CAPTION = (
    "Percent, but for the half-yield (the shift that recovers half of the harmful answers, over "
    "the base's) and the KL (nats, harmless prompts). Capability: harmless prompts answered, over "
    "the base's. Over-refusal: of prompts that only look harmful."
)
AXES = ("capability_kept", "scav_dsr")
"""What the front is drawn by."""


def csv_of_jobs(rows: Sequence[SweepRow], sweep: Path) -> str:
    """A line for each job; empty cells for what is not known."""
    return _csv(
        COLUMNS,
        (
            {
                "job": row.record.number,
                "status": row.record.status,
                "overrides": " ".join(row.record.words),
                "layers": row.layers,
                "kl_weight": row.kl_weight,
                "seed": row.seed,
                **row.figures,
                "steps": "+".join(map(str, row.steps)),
                "stage_ends": "+".join(row.stage_ends),
                "seconds": row.record.seconds,
                "error": row.record.error,
                "folder": row.folder.relative_to(sweep),
            }
            for row in rows
        ),
    )


def csv_of_settings(settings: Sequence[SettingRow]) -> str:
    """A line for each setting, over its seeds: mean, standard deviation, range and number."""
    parts = ("mean", "std", "low", "high", "n")
    columns = ("overrides", "layers", "kl_weight", "seeds", "jobs")
    return _csv(
        (*columns, *(f"{name}_{part}" for name in FIGURES for part in parts)),
        (
            {
                "overrides": " ".join(
                    word for word in setting.first.record.words if not word.startswith("seed=")
                ),
                "layers": _common_layers(setting),
                "kl_weight": setting.first.kl_weight,
                "seeds": " ".join(map(str, setting.seeds)),
                "jobs": len(setting.rows),
                **{
                    f"{name}_{part}": getattr(spread, part)
                    for name, spread in setting.figures.items()
                    for part in parts
                },
            }
            for setting in settings
        ),
    )


def jobs_table(rows: Sequence[SweepRow]) -> Table:
    """A row for each job; on the front, its first figure is marked."""
    front = front_of(rows)
    seeds = len({row.seed for row in rows}) > 1
    # Beside the values, where there are several.
    layers = len({row.layers for row in rows}) > 1
    table = _table("Jobs", ["job", "values", *(["layers"] if layers else [])])
    table.caption = escape(CAPTION)
    width = VALUES_WIDTH - LAYERS_WIDTH * layers
    for i, row in enumerate(rows):
        seed = [f"seed={row.seed}"] if seeds and row.seed is not None else []
        cells = [str(row.record.number), _values([*row.varying, *seed], width)]
        cells += [escape(wrapped(row.layers, LAYERS_WIDTH))] if layers else []
        if row.record.status == "finished":
            cells += [_shown(row.figures[name], name) for name in SHOWN]
            cells[-len(SHOWN)] += "*" if i in front else " "
            table.add_row(*cells, style="bold" if i in front else None)
        else:
            table.add_row(*cells, row.record.status, style="dim")
    return table


def settings_table(settings: Sequence[SettingRow]) -> Table:
    """A row for each setting: mean ± standard deviation over its seeds, and below it the range."""
    table = _table("Over seeds: mean ± standard deviation, and range", ["values", "n"])
    for setting in settings:
        cells = [_spread(setting.figures[name], name) for name in SHOWN]
        table.add_row(
            _values(setting.first.varying, VALUES_WIDTH - LAYERS_WIDTH),
            str(len(setting.rows)),
            *cells,
        )
    return table


def summary(rows: Sequence[SweepRow], *, since: float | None = None) -> list[str]:
    """What the jobs came to, in sentences.

    Args:
        rows: All jobs that began.
        since: When this start of the sweep was, seconds since 1970: what ended before was skipped.
    """
    counted = Counter(row.record.status for row in rows)
    words = ", ".join(f"{n} {status}" for status, n in counted.items())
    ended = [row.record.ended for row in rows if row.record.status == "finished"]
    earlier = sum(1 for at in ended if since is not None and at is not None and at < since)
    if earlier:
        words += f" ({earlier} of them earlier, and not run again)"
    lines = [f"{len(rows)} {'job' if len(rows) == 1 else 'jobs'}: {words}."]
    lines += [
        f"Job {row.record.number}"
        + (f" ({' '.join(row.varying)})" if row.varying else "")
        + f" {row.record.status}"
        + (f": {row.record.error}" if row.record.error else ".")
        for row in rows
        if row.record.status in ("failed", "interrupted")
    ]
    lines += [
        f"Job {row.record.number}: {row.folder / RESULTS} cannot be read; its figures are left out."
        for row in rows
        if row.damaged
    ]
    if not counted["finished"]:
        lines.append("No job has finished yet: there are no figures, and there is no picture.")
    elif all(math.isnan(value) for row in rows for value in row.figures.values()):
        lines.append("No job has figures, as with evaluate=none: there is no picture.")
    if front_of(rows):
        lines.append(
            "*: on the Pareto front: no other job has a higher SCAV DSR and keeps as much of the "
            "base's capability, or the other way round."
        )
    return lines


def front_of(rows: Sequence[SweepRow]) -> set[int]:
    """Places of the jobs on the front of SCAV DSR against capability kept."""
    return set(pareto_front([(row.figures[AXES[0]], row.figures[AXES[1]]) for row in rows]))


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(
        title=title,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name in columns:
        text = name in ("values", "layers")
        table.add_column(name, justify="left" if text else "right", no_wrap=True)
    for name in SHOWN:
        arrow = "↑" if FIGURES[name].better > 0 else "↓"
        table.add_column(f"{FIGURES[name].heading} {arrow}", justify="right", no_wrap=True)
    return table


def _values(words: Sequence[str], width: int) -> str:
    """Overrides under each other, without the groups that their keys are in."""
    return escape("\n".join(wrapped(_short(word), width) for word in words))


def _short(word: str) -> str:
    key, _, value = word.lstrip("+").partition("=")
    # What Optuna drew has sixteen digits.
    with contextlib.suppress(ValueError):
        value = f"{float(value):.3g}" if "." in value else value
    return f"{key.rpartition('.')[2]}={value}"


def _shown(value: float, name: str) -> str:
    return figure(value, "percent" if FIGURES[name].share else "number")


def _spread(spread: Spread, name: str) -> str:
    if not spread.n:
        return NOT_MEASURED
    middle = _shown(spread.mean, name)
    if not math.isnan(spread.std):
        middle += f"±{_shown(spread.std, name)}"
    return f"{middle}\n{_shown(spread.low, name)}–{_shown(spread.high, name)}"


def _common_layers(setting: SettingRow) -> str:
    """The emergence layer may differ between seeds; then all sets are told."""
    return " ".join(dict.fromkeys(row.layers for row in setting.rows))


def _csv(columns: Sequence[str], lines: Iterable[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: _cell(value) for name, value in line.items()})
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return "" if value is None else value
