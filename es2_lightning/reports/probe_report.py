"""The report of the probe command: a table, a picture, and files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from es2_lightning.atomic_files import write_atomically
from es2_lightning.evaluation.intervals import Estimate
from es2_lightning.evaluation.layer_probes import ProbedModel, ProbeResults
from es2_lightning.evaluation.results_files import as_json
from es2_lightning.evaluation.state_distances import Distances
from es2_lightning.reports.cells import cell
from es2_lightning.reports.pictures import probe as picture
from es2_lightning.reports.pictures.style import house_style, save

COLUMNS = ("model", "layer", "metric", "value", "low", "high", "n")


def write_probe_report(
    results: ProbeResults,
    folder: Path,
    *,
    about: Mapping[str, Any],
    console: Console | None = None,
) -> list[Path]:
    """Print the table; write `probe.json`, `probe.csv` and `pictures/probe.png`.

    Args:
        results: What was found.
        folder: The run's folder.
        about: What was probed, for `probe.json`: model, adapter, where the prompts came from.
        console: Where the table is printed.

    Returns:
        The written files.
    """
    console = console or Console()
    found = {
        **about,
        **as_json(results),
        "emergence": {m.name: m.emergence for m in results.models},
        "certain_emergence": {m.name: m.certain_emergence for m in results.models},
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "probe.json", json.dumps(found, indent=1) + "\n")
    write_atomically(folder / "probe.csv", _csv(results))
    console.print(probe_table(results))
    for sentence in findings(results):
        console.print(Padding(escape(sentence), (0, 0, 0, 2)))
    with house_style():
        drawn = save(
            picture.draw(results.models, results.baselines), folder / "pictures" / "probe.png"
        )
    return [folder / "probe.json", folder / "probe.csv", drawn]


def probe_table(results: ProbeResults) -> Table:
    """Layers as rows, the models beneath each other; it fits into 80 columns."""
    table = Table(
        title="Harmful or harmless, told from the last token's hidden state",
        caption=(
            f"Fitted on {results.fitted_on} prompts of each class, scored on {results.scored_on} "
            "others. Distances are relative to the mean norm of the layer's states (the last "
            "column); absolute ones are in probe.csv. Brackets: 95 % intervals."
        ),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
        padding=0,
    )
    table.add_column("layer", no_wrap=True)
    table.add_column("accuracy, %", justify="right", no_wrap=True)
    table.add_column("between", justify="right", no_wrap=True)
    table.add_column("within harmful", justify="right", no_wrap=True)
    table.add_column("within harmless", justify="right", no_wrap=True)
    table.add_column("norm", justify="right", no_wrap=True)
    several = len(results.models) > 1
    for rows in zip(*(model.layers for model in results.models), strict=True):
        for i, (model, row) in enumerate(zip(results.models, rows, strict=True)):
            distances = row.distances
            number = str(row.layer) if i == 0 else " " * len(str(row.layer))
            table.add_row(
                f"{number} {model.name}" if several else number,
                escape(cell(row.accuracy)),
                escape(cell(distances.relative_between, "ratio")),
                escape(cell(distances.relative_within_harmful, "ratio")),
                escape(cell(distances.relative_within_harmless, "ratio")),
                f"{distances.mean_norm.value:.3g}",
                style="bold" if i else None,
            )
    return table


def findings(results: ProbeResults) -> list[str]:
    """What follows from the figures, in sentences."""
    texts = ", ".join(f"{name} {cell(a)} %" for name, a in results.baselines.items())
    sentences = [f"Text alone, same prompts: {texts}."]
    sentences += [_emergence(model, several=len(results.models) > 1) for model in results.models]
    best = max(results.baselines.items(), key=lambda item: item[1].value)
    first = results.models[0]
    surely = [s.layer for s in first.layers if s.accuracy.low > best[1].high]
    if not surely:
        sentences.append(
            f"No layer's probe is surely better than {best[0]}: on these prompts, accuracy says "
            "little of the model."
        )
    else:
        sentences.append(
            f"From layer {surely[0]} on, the base model's probe is surely better than {best[0]}."
        )
    return sentences


def _emergence(model: ProbedModel, *, several: bool) -> str:
    of = f" of the {model.name} model" if several else ""
    percent = f"{100 * model.threshold:g} %"
    if model.emergence is None:
        return f"Emergence layer{of}: none; no accuracy exceeds {percent}."
    sure = model.certain_emergence
    certainty = (
        "its whole interval does"
        if sure == model.emergence
        else f"a whole interval does from layer {sure} on"
        if sure is not None
        else "no whole interval does"
    )
    return (
        f"Emergence layer{of}: {model.emergence}, the first whose accuracy exceeds {percent}; "
        f"{certainty}."
    )


def _csv(results: ProbeResults) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for model, layer, metric, figure in _figures(results):
        writer.writerow([model, layer, metric, figure.value, figure.low, figure.high, figure.n])
    return text.getvalue()


def _figures(results: ProbeResults) -> Iterator[tuple[str, int | str, str, Estimate]]:
    for name, accuracy in results.baselines.items():
        yield name, "", "accuracy", accuracy
    for model in results.models:
        for row in model.layers:
            yield model.name, row.layer, "probe_accuracy", row.accuracy
            for field in fields(Distances):
                yield model.name, row.layer, field.name, getattr(row.distances, field.name)
