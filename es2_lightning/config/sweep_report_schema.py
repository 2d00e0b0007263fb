"""The whole config of `python -m es2_lightning.sweep_report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from es2_lightning.config import job_record
from es2_lightning.errors import UserError


@dataclass
class SweepReportConfig:
    """Which sweep is told of."""

    dir: str | None = None
    """The folder below which the jobs' folders are."""


def check_sweep_report(config: SweepReportConfig) -> None:
    """Refuse a folder that is no sweep's.

    Raises:
        UserError: There is no such folder, or no job of a sweep below it.
    """
    if config.dir is None:
        raise UserError(
            "dir has no value. Give it one: dir=<a sweep's folder>, such as outputs/sweeps/<time>."
        )
    folder = Path(config.dir)
    if not folder.is_dir():
        raise UserError(f"dir={folder}: no such folder. Accepted: a sweep's{_nearby(folder)}.")
    if (folder / job_record.FILE).exists():
        raise UserError(
            f"dir={folder}: this is the folder of one job. Accepted: that of its sweep, such as "
            f"{folder.parent}."
        )
    if not job_record.records(folder):
        raise UserError(
            f"dir={folder}: no job of a sweep has begun there (<job>/{job_record.FILE}). Accepted: "
            f"a folder that `python -m es2_lightning.train -m …` wrote{_nearby(folder)}."
        )


def _nearby(folder: Path) -> str:
    """The newest sweep in or beside `folder`, as an example."""
    for root in (folder, folder.parent):
        found = list(root.glob(f"*/*/{job_record.FILE}"))
        if found:
            newest = max(found, key=lambda path: path.stat().st_mtime)
            return f", such as {newest.parents[1]}"
    return ", such as outputs/sweeps/<time>"
