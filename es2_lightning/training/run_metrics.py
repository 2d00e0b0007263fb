"""The run's own metrics, whichever logger is chosen: one JSON line a step, and a CSV at the end."""

from __future__ import annotations

import csv
import io
import json
import math
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from es2_lightning.logged_keys import TOKENS_PER_SECOND


class RunMetrics(Logger):
    """Writes `metrics.jsonl` as the training goes, and `metrics.csv` when it ends.

    A resumed run appends: a step that was logged before it was interrupted, and again after, is
    read as it was logged last. What depends on the machine's speed is left to the loggers and to
    `cost.json`: the same run leaves the same bytes.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.jsonl"

    @property
    def name(self) -> str:
        """None of its own."""
        return ""

    @property
    def version(self) -> str:
        """None of its own."""
        return ""

    @property
    def experiment(self) -> None:
        """There is no object behind it."""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any) -> None:
        """They stand in the run's `config.yaml`."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append one line; what is not finite is left out."""
        kept = {k: float(v) for k, v in metrics.items() if k != TOKENS_PER_SECOND}
        finite = {k: v for k, v in kept.items() if math.isfinite(v)}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **finite}) + "\n")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the CSV, a row for each step."""
        rows = self.read()
        columns = ["step", *sorted({k for row in rows for k in row} - {"step"})]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.path.with_suffix(".csv").write_text(text.getvalue(), encoding="utf-8")

    def read(self) -> list[dict[str, Any]]:
        """All rows, one for each step, in their order."""
        if not self.path.exists():
            return []
        rows: dict[int, dict[str, Any]] = {}
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # The line at which a run was killed.
            step = row["step"]
            # Validation and training figures of one step come in different lines.
            rows[step] = rows.get(step, {}) | row
        return [rows[step] for step in sorted(rows)]
