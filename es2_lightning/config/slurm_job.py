"""The SLURM job that a command runs in: requeued, it finds the folder that it wrote into before."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

MARK = ".slurm_job"


def requeued() -> bool:
    """Whether SLURM started this job before, and then once more."""
    return _job() is not None and os.environ.get("SLURM_RESTART_COUNT", "0") != "0"


def remember(folder: Path) -> None:
    """Leave a mark in a new folder by which the job finds it; nothing outside of a job."""
    if (job := _job()) is not None:
        (folder / MARK).write_text(job, encoding="utf-8")


def earlier_folder(root: Path) -> Path | None:
    """The folder that this command made below `root` before its job was requeued."""
    if not requeued():
        return None
    job = _job()
    marks = (path for path in root.glob(f"*/{MARK}") if path.read_text("utf-8") == job)
    newest = max(marks, key=lambda path: path.stat().st_mtime, default=None)
    return None if newest is None else newest.parent


def _job() -> str | None:
    """The command as a part of its job, which may run several: the same when requeued."""
    if (number := os.environ.get("SLURM_JOB_ID")) is None:
        return None
    return f"{number} {shlex.join(sys.argv[1:])}"
