"""What an evaluation leaves: `results.json`, `results.csv`, `generations.jsonl`."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from es2_lightning.atomic_files import write_atomically
from es2_lightning.evaluation.attack_rows import curve_of
from es2_lightning.evaluation.comparison import Comparison
from es2_lightning.evaluation.intervals import Estimate
from es2_lightning.evaluation.measurement import AttackMeasurement, Measurement
from es2_lightning.evaluation.verdict import verdict

FILES = ("results.json", "results.csv", "generations.jsonl")
COLUMNS = (
    "model",
    "attack",
    "judge",
    "judge_hash",
    "metric",
    "layer",
    "value",
    "low",
    "high",
    "n",
    "p_value",
)


def write_results(comparison: Comparison, folder: Path) -> list[Path]:
    """Write the three files, each at once or not at all.

    Returns:
        Their paths.
    """
    results = {
        "verdict": verdict(comparison),
        "effective": comparison.effective,
        "base_budget_95": {
            f"{attack}/{axis}": budget for (attack, axis), budget in comparison.base_budgets.items()
        },
        "rows": comparison.rows,
        "measurements": {m.model: _summary(m) for m in comparison.measurements},
    }
    lines = [
        json.dumps(as_json(row), ensure_ascii=False)
        for measured in comparison.measurements
        for row in _generations(measured)
    ]
    texts = (
        json.dumps(as_json(results), indent=1),
        _csv(comparison),
        "".join(line + "\n" for line in lines),
    )
    contents = dict(zip(FILES, texts, strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        write_atomically(folder / name, text)
    return [folder / name for name in contents]


def as_json(value: Any) -> Any:
    """Plain JSON of results: NaN becomes null and infinity the string "inf"."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if is_dataclass(value) and not isinstance(value, type):
        extra = _derived(value)
        return {f.name: as_json(getattr(value, f.name)) for f in fields(value)} | as_json(extra)
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [as_json(item) for item in value]
    return str(value) if isinstance(value, str) else value


def _derived(value: Any) -> dict[str, Any]:
    """Figures that follow from an object's fields and that a reader of the file would miss."""
    names = {
        "BudgetCurve": ("recovered", "yield_95", "half_yield"),
    }.get(type(value).__name__, ())
    return {name: getattr(value, name) for name in names}


def _summary(measured: Measurement) -> dict[str, Any]:
    """A model's measurement without its generations, which have a file of their own."""
    return {
        "judges": measured.judges,
        "generation": measured.generation,
        "attacks": {
            name: {
                "not_possible": made.not_possible,
                "settings": made.settings,
                "notes": made.notes,
                "curves": {axis: curve_of(measured, name, axis) for axis in made.budgets},
            }
            for name, made in measured.attacks.items()
        },
        "separability": measured.separability,
        "projections": measured.projections,
        "kl_to_base": measured.kl_to_base,
        "capability": measured.capability,
    }


def _generations(measured: Measurement) -> Iterator[dict[str, Any]]:
    for kind, made in measured.direct.items():
        if kind != "harmful":
            yield from _rows_of(measured, made)
    for made in measured.attacks.values():
        yield from _rows_of(measured, made)


def _rows_of(measured: Measurement, made: AttackMeasurement) -> Iterator[dict[str, Any]]:
    for index, (prompt, attacked) in enumerate(zip(made.prompts, made.attacked, strict=True)):
        for number, generation in enumerate(attacked.generations):
            verdicts = {
                judge: {
                    **as_json(of_judge[index][number]),
                    "judge_hash": measured.judges[judge],
                }
                for judge, of_judge in made.verdicts.items()
            }
            yield {
                "model": measured.model,
                "attack": made.attack,
                "variant": generation.variant,
                "kind": prompt.kind,
                "prompt": prompt.text,
                "output": generation.output,
                "verdicts": verdicts,
                "coherence": as_json(made.coherence[index][number]),
                "details": generation.details,
                "figures": attacked.figures,
                "by_layer": {
                    name: [float(f"{value:.4g}") for value in values]
                    for name, values in attacked.layer_figures.items()
                },
                "needed": attacked.needed,
                "generation": {
                    name: measured.generation[name]
                    for name in ("decoding", "max_new_tokens", "seed")
                    if name in measured.generation
                },
            }


def _csv(comparison: Comparison) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in comparison.rows:
        # Where an attack does not even work on the base, a defence rate would mean nothing.
        if row.metric == "defended" and not comparison.effective.get(row.attack, True):
            continue
        for measured, estimate in zip(comparison.measurements, (row.base, row.tuned), strict=False):
            if estimate is None:
                continue
            p_value = row.p_value if measured is comparison.tuned else None
            writer.writerow(
                {
                    "model": measured.model,
                    "attack": row.attack,
                    "judge": row.judge,
                    "judge_hash": measured.judges.get(row.judge, ""),
                    "metric": row.metric,
                    "layer": row.layer,
                    "n": estimate.n,
                    "p_value": _cell(p_value),
                    **_cells(estimate),
                }
            )
    for attack, works in comparison.effective.items():
        n = len(comparison.base.direct["harmful"].prompts)
        writer.writerow(
            {
                "model": comparison.base.model,
                "attack": attack,
                "judge": comparison.headline,
                "judge_hash": comparison.base.judges[comparison.headline],
                "metric": "effective",
                "value": int(works),
                "n": n,
            }
        )
    for measured in comparison.measurements:
        writer.writerows(_curve_cells(measured))
    return text.getvalue()


def _curve_cells(measured: Measurement) -> Iterator[dict[str, Any]]:
    for name, made in measured.attacks.items():
        for axis in made.budgets:
            curve = curve_of(measured, name, axis)
            if curve is None:
                continue
            for budget, estimate in zip(curve.budgets, curve.recovered, strict=True):
                yield {
                    "model": measured.model,
                    "attack": name,
                    "judge": measured.headline,
                    "judge_hash": measured.judges[measured.headline],
                    "metric": f"recovered_at_{axis}_{budget:g}",
                    "n": estimate.n,
                    **_cells(estimate),
                }


def _cells(estimate: Estimate) -> dict[str, str]:
    return {name: _cell(getattr(estimate, name)) for name in ("value", "low", "high")}


def _cell(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6g}"
