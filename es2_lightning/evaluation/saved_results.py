"""An evaluation as it was written to its folder, read back: the inverse of `write_results`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from es2_lightning.errors import UserError
from es2_lightning.evaluation.attacks.attack import Attacked, Generation
from es2_lightning.evaluation.capability.capability import CapabilityFigure
from es2_lightning.evaluation.coherence import OutputMeasures
from es2_lightning.evaluation.comparison import Comparison
from es2_lightning.evaluation.intervals import Estimate
from es2_lightning.evaluation.measurement import AttackMeasurement, Measurement
from es2_lightning.evaluation.outcomes import Outcome, Verdict
from es2_lightning.evaluation.rows import Row
from es2_lightning.evaluation.separability import LayerSeparability, Projection
from es2_lightning.evaluation.state_distances import Distances
from es2_lightning.prompts.prompt import KINDS, Prompt

RESULTS, GENERATIONS = "results.json", "generations.jsonl"
Outputs = Mapping[tuple[str, str, str], list[dict[str, Any]]]
"""The lines of `generations.jsonl` by model, attack and kind of prompt."""


def read_comparison(folder: Path) -> Comparison | None:
    """What `write_results` left; None where it left nothing.

    Of a prompt the words are back, not its response or the turns before; figures by layer and
    prompt are rounded to four digits. Two prompts of the same words one after the other, of which
    an attack made the same figures, come back as one.

    Raises:
        UserError: The files are damaged, or of another version of this project.
    """
    if not (folder / RESULTS).exists():
        return None
    try:
        results = json.loads((folder / RESULTS).read_text("utf-8"))
        outputs = _outputs((folder / GENERATIONS).read_text("utf-8"))
        measured = [_measurement(name, m, outputs) for name, m in results["measurements"].items()]
        return Comparison(
            base=measured[0],
            tuned=measured[1] if len(measured) > 1 else None,
            rows=[_row(row) for row in results["rows"]],
            base_budgets={
                (name.rpartition("/")[0], name.rpartition("/")[2]): _number(budget)
                for name, budget in results["base_budget_95"].items()
            },
            effective=results["effective"],
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder}: its {RESULTS} and {GENERATIONS} cannot be read "
            f"({type(error).__name__}: {error}). Accepted: what this version's `train` or "
            "`evaluate` wrote; `evaluate run=…` writes them anew, from what was measured already."
        ) from error


def _outputs(text: str) -> Outputs:
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    # Not splitlines, which also breaks at characters that JSON leaves as they are.
    for line in filter(None, text.split("\n")):
        row = json.loads(line)
        found.setdefault((row["model"], row["attack"], row["kind"]), []).append(row)
    return found


def _measurement(model: str, found: Mapping[str, Any], outputs: Outputs) -> Measurement:
    judges = found["judges"]
    attacks = {
        name: _attack(name, made, judges, outputs.get((model, name, "harmful"), []))
        for name, made in found["attacks"].items()
    }
    return Measurement(
        model=model,
        judges=judges,
        direct={
            kind: attacks["direct"]
            if kind == "harmful"
            else _attack("direct", {}, judges, outputs[model, "direct", kind])
            for kind in KINDS
            if kind == "harmful" or (model, "direct", kind) in outputs
        },
        attacks=attacks,
        separability=[
            LayerSeparability(
                layer=layer["layer"],
                probe_accuracy=_estimate(layer["probe_accuracy"]),
                distances=Distances(**{k: _estimate(v) for k, v in layer["distances"].items()}),
            )
            for layer in found["separability"]
        ],
        projections=[_projection(projection) for projection in found["projections"]],
        kl_to_base={kind: _estimate(value) for kind, value in found["kl_to_base"].items()},
        capability=[
            CapabilityFigure(**(figure | {"estimate": _estimate(figure["estimate"])}))
            for figure in found["capability"]
        ],
        generation=found["generation"],
    )


def _attack(
    name: str, made: Mapping[str, Any], judges: Iterable[str], rows: Iterable[Mapping[str, Any]]
) -> AttackMeasurement:
    by_prompt = list(_by_prompt(rows))
    return AttackMeasurement(
        attack=name,
        prompts=tuple(Prompt(some[0]["prompt"], some[0]["kind"]) for some in by_prompt),
        attacked=tuple(_attacked(some) for some in by_prompt),
        verdicts={
            judge: [[_verdict(row["verdicts"][judge]) for row in some] for some in by_prompt]
            for judge in judges
        },
        coherence=[[_reading(row["coherence"]) for row in some] for some in by_prompt],
        settings=made.get("settings", {}),
        notes=made.get("notes", {}),
        budgets={
            axis: tuple(budget for budget in curve["budgets"] if budget > 0)
            for axis, curve in made.get("curves", {}).items()
            if curve is not None
        },
        not_possible=made.get("not_possible"),
    )


def _by_prompt(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """The generations of each prompt stand one after the other, and have its figures."""
    same = ("prompt", "figures", "by_layer", "needed")
    for _, some in groupby(rows, key=lambda row: [row[name] for name in same]):
        yield list(some)


def _attacked(rows: list[Mapping[str, Any]]) -> Attacked:
    first = rows[0]
    return Attacked(
        generations=tuple(
            Generation(row["output"], variant=row["variant"], details=row["details"])
            for row in rows
        ),
        figures={name: _number(value) for name, value in first["figures"].items()},
        layer_figures=first["by_layer"],
        needed={axis: _number(value) for axis, value in first["needed"].items()},
    )


def _verdict(found: Mapping[str, Any]) -> Verdict:
    score = found["score"]
    return Verdict(
        Outcome(found["outcome"]), None if score is None else _number(score), found["details"]
    )


def _reading(found: Mapping[str, Any]) -> OutputMeasures:
    perplexity = found["perplexity"]
    return OutputMeasures(
        **(dict(found) | {"perplexity": math.inf if perplexity is None else _number(perplexity)})
    )


def _projection(found: Mapping[str, Any]) -> Projection:
    def points(name: str) -> list[tuple[float, float]]:
        return [(_number(x), _number(y)) for x, y in found[name]]

    x, y = found["explained"]
    return Projection(found["layer"], points("harmful"), points("harmless"), (x, y))


def _row(found: Mapping[str, Any]) -> Row:
    sides = {
        name: None if found[name] is None else _estimate(found[name]) for name in ("base", "tuned")
    }
    return Row(**(dict(found) | sides))


def _estimate(found: Mapping[str, Any]) -> Estimate:
    value, low, high = (_number(found[name]) for name in ("value", "low", "high"))
    return Estimate(value, low, high, found["n"])


def _number(written: Any) -> float:
    """A number as results have it: null for NaN, and "inf"."""
    return math.nan if written is None else float(written)
