"""What a run keeps of its evaluation: `results.json`, `results.csv`, `generations.jsonl`."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from es2_lightning.evaluation.comparison import Comparison
from es2_lightning.evaluation.intervals import Estimate
from es2_lightning.evaluation.measurement import Measurement
from es2_lightning.evaluation.verdict import verdict

COLUMNS = ("model", "attack", "judge", "metric", "layer", "value", "low", "high", "n", "p_value")


def write_results(comparison: Comparison, folder: Path) -> list[Path]:
    """Write the three files, each at once or not at all.

    Returns:
        Their paths.
    """
    measured = (comparison.base, comparison.tuned)
    results = {
        "verdict": verdict(comparison),
        "base_budget_95": comparison.base_budget,
        "rows": comparison.rows,
        "measurements": {m.model: as_json(m) for m in measured},
    }
    lines = [json.dumps(as_json(row)) for m in measured for row in m.generations]
    contents = {
        "results.json": json.dumps(as_json(results), indent=1),
        "results.csv": _csv(comparison),
        "generations.jsonl": "".join(line + "\n" for line in lines),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        write_atomically(folder / name, text)
    return [folder / name for name in contents]


def write_atomically(path: Path, text: str) -> None:
    """Replace a file as a whole: whoever reads it sees the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def as_json(value: Any) -> Any:
    """Plain JSON of results: NaN becomes null and infinity the string "inf".

    A measurement's generations are left out: they have a file of their own.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if is_dataclass(value) and not isinstance(value, type):
        kept = [f.name for f in fields(value) if f.name != "generations"]
        extra = _derived(value)
        return {name: as_json(getattr(value, name)) for name in kept} | as_json(extra)
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [as_json(item) for item in value]
    return str(value) if isinstance(value, str) else value


def _derived(value: Any) -> dict[str, Any]:
    """Figures that follow from an object's fields and that a reader of the file would miss."""
    names = {
        "BudgetCurve": ("recovered", "yield_95", "half_yield"),
        "LayerSeparability": ("relative_between",),
    }.get(type(value).__name__, ())
    return {name: getattr(value, name) for name in names}


def _csv(comparison: Comparison) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in comparison.rows:
        for measured, estimate in (
            (comparison.base, row.base),
            (comparison.tuned, row.tuned),
        ):
            if estimate is not None:
                p_value = row.p_value if measured is comparison.tuned else None
                writer.writerow(
                    {
                        "model": measured.model,
                        "attack": row.attack,
                        "judge": measured.judge,
                        "metric": row.metric,
                        "layer": row.layer,
                        "n": estimate.n,
                        "p_value": _cell(p_value),
                        **_cells(estimate),
                    }
                )
    for measured in (comparison.base, comparison.tuned):
        writer.writerows(_curve_cells(measured))
    return text.getvalue()


def _curve_cells(measured: Measurement) -> list[dict[str, Any]]:
    if measured.scav is None:
        return []
    curve = measured.scav.curve
    return [
        {
            "model": measured.model,
            "attack": "scav_budget",
            "judge": measured.judge,
            "metric": f"recovered_at_{budget:g}",
            "n": estimate.n,
            **_cells(estimate),
        }
        for budget, estimate in zip(curve.budgets, curve.recovered, strict=True)
    ]


def _cells(estimate: Estimate) -> dict[str, str]:
    return {name: _cell(getattr(estimate, name)) for name in ("value", "low", "high")}


def _cell(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6g}"
