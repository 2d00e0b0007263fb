"""One run in W&B: what it is told, beside the metrics that Lightning logs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb

from es2_lightning.evaluation.comparison import Comparison
from es2_lightning.evaluation.intervals import Estimate
from es2_lightning.logged_keys import GENERATIONS, PICTURES, RESULTS
from es2_lightning.reports.wandb_record import read_record

log = logging.getLogger(__name__)
MOST_GENERATIONS = 2000
"""Rows of the table: W&B's pages grow slow beyond some thousand. All are in the artifact."""
GENERATION_COLUMNS = ("model", "attack", "variant", "kind", "judge", "outcome", "prompt", "output")
RESULT_COLUMNS = (
    *("attack", "metric", "judge", "layer"),
    *("base", "base_low", "base_high", "tuned", "tuned_low", "tuned_high", "n", "p_value"),
)


def log_tables(run: Any, comparison: Comparison) -> None:
    """The tables of an evaluation."""
    generations = _generation_rows(comparison)
    if len(generations) > MOST_GENERATIONS:
        log.info(
            "W&B's table of generations has the first %d of %d; the artifact has all",
            *(MOST_GENERATIONS, len(generations)),
        )
    tables = {
        GENERATIONS: wandb.Table(list(GENERATION_COLUMNS), generations[:MOST_GENERATIONS]),
        RESULTS: wandb.Table(list(RESULT_COLUMNS), _result_rows(comparison)),
    }
    run.log(tables)


def log_pictures(run: Any, folder: Path) -> None:
    """The pictures of the folder."""
    pictures = sorted((folder / "pictures").glob("*.png"))
    if pictures:
        run.log({f"{PICTURES}/{path.stem}": wandb.Image(str(path)) for path in pictures})


def log_artifact(run: Any, kind: str, paths: Sequence[Path], *, of: str) -> None:
    """Files and folders as one artifact; those that are not there are left out.

    Args:
        run: W&B's.
        kind: Its type, and the first word of its name.
        paths: What goes into it.
        of: The id of the training run that it belongs to.
    """
    if any(path.exists() for path in paths):
        run.log_artifact(_artifact(kind, paths, of=of))


def use_adapter(run: Any, trained: Path, adapter: Path) -> None:
    """Say that this run evaluates what another one trained: W&B draws the lineage.

    The folder's content itself is named, under the name that the training gave it, so that it does
    not matter whether the training's run is synced yet; W&B stores the same content once.
    """
    of = read_record(trained).get("id") or trained.name
    artifact = _artifact("adapter", [adapter], of=of)
    if run.offline:
        # `use_artifact` refuses to be offline, but this, which it calls, is recorded.
        run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
    else:
        run.use_artifact(artifact)


def _artifact(kind: str, paths: Sequence[Path], *, of: str) -> wandb.Artifact:
    artifact = wandb.Artifact(f"{kind}-{of}", type=kind)
    for path in paths:
        if path.is_dir():
            # An adapter is the artifact; other folders keep their names in it.
            artifact.add_dir(str(path), name=None if len(paths) == 1 else path.name)
        elif path.exists():
            artifact.add_file(str(path), name=path.name)
    return artifact


def _generation_rows(comparison: Comparison) -> list[list[Any]]:
    judge = comparison.headline
    return [
        [
            *(measured.model, made.attack, generation.variant, prompt.kind, judge),
            *(verdict.outcome.value, prompt.text, generation.output),
        ]
        for measured in comparison.measurements
        for made in (
            *(made for kind, made in measured.direct.items() if kind != "harmful"),
            *measured.attacks.values(),
        )
        if made.not_possible is None
        for prompt, attacked, verdicts in zip(
            made.prompts, made.attacked, made.verdicts[judge], strict=True
        )
        for generation, verdict in zip(attacked.generations, verdicts, strict=True)
    ]


def _result_rows(comparison: Comparison) -> list[list[Any]]:
    rows = []
    for row in comparison.rows:
        figures = [*_cells(row.base), *_cells(row.tuned)]
        n = next((e.n for e in (row.tuned, row.base) if e is not None), None)
        rows.append([row.attack, row.metric, row.judge, row.layer, *figures, n, row.p_value])
    return rows


def _cells(estimate: Estimate | None) -> list[float | None]:
    values = [None] * 3 if estimate is None else [estimate.value, estimate.low, estimate.high]
    return [None if value is None or value != value else float(value) for value in values]
