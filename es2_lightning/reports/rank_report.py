"""The report of the rank command: tables, a picture, and files."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from es2_lightning.atomic_files import write_atomically
from es2_lightning.evaluation.ranking.results import AS_SAMPLED, RankResults
from es2_lightning.evaluation.results_files import as_json
from es2_lightning.reports.cells import WIDTH
from es2_lightning.reports.pictures import ranking as picture
from es2_lightning.reports.pictures.style import house_style, save
from es2_lightning.reports.rank_tables import tables

COLUMNS = ("model", "lists", "group", "num_candidates", "ranker", "metric")
SRR_CHOICE = "listnet"
INTERVAL = ("value", "low", "high", "n")


def write_rank_report(
    results: RankResults,
    folder: Path,
    *,
    ranker: str = SRR_CHOICE,
    console: Console | None = None,
) -> list[Path]:
    """Print the tables; write `rank.csv`, `rank.json`, `table.txt` and `pictures/`.

    Args:
        results: What was found.
        folder: The run's folder.
        ranker: Which choice of the config group the tables' "SRR" is.
        console: Where the tables are printed.

    Returns:
        The written files.
    """
    console = console or Console()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "rank.csv", _csv(results))
    found = {
        "notes": {**results.notes, "ranker": ranker},
        "comparisons": [as_json(comparison) for comparison in results.comparisons],
        "costs": [asdict(cost) | {"extra": cost.extra} for cost in results.costs],
        "figures": [as_json(row) for row in results.rows],
    }
    write_atomically(folder / "rank.json", json.dumps(found, indent=1) + "\n")
    text = Console(file=io.StringIO(), width=WIDTH, record=True, color_system=None)
    for shown in (console, text):
        if ranker != SRR_CHOICE:
            shown.print(f"In what follows, “SRR” is ranker={ranker}, not SRR's own.\n")
        for table in tables(results):
            shown.print(table)
            shown.print()
    write_atomically(folder / "table.txt", text.export_text())
    written = [folder / "rank.csv", folder / "rank.json", folder / "table.txt"]
    with house_style():
        for model in results.values("model", lists=AS_SAMPLED):
            drawn = picture.draw(results, model)
            written.append(save(drawn, folder / "pictures" / f"{model}_safe_by_m.png"))
    return written


def _csv(results: RankResults) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *INTERVAL])
    for row in results.rows:
        values = [getattr(row, name) for name in COLUMNS]
        writer.writerow([*values, *(getattr(row.estimate, name) for name in INTERVAL)])
    return text.getvalue()
