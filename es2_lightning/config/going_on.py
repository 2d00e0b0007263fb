"""Where a run that was stopped goes on, and how that is told, in the words of its command line."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from es2_lightning.config import job, slurm_job
from es2_lightning.config.ranks import this_rank
from es2_lightning.config.run_folder import LAST_CHECKPOINT
from es2_lightning.stopping import Stopped

log = logging.getLogger(__name__)
FOLDERS = ("hydra.run.dir=", "hydra.sweep.dir=")


def checkpoint_to_go_on_from(ckpt_path: str | None) -> Path | None:
    """Where a run's training begins; None: at its beginning.

    Args:
        ckpt_path: The user's. `last` is the last checkpoint in the run's folder, if it has one
            yet. A job of a sweep, and a job that SLURM requeued, take it without being asked.
    """
    folder = job.output_dir()
    own = folder / LAST_CHECKPOINT
    unasked = slurm_job.requeued() or (job.sweep_dir() is not None and ckpt_path is None)
    if own.exists() and (ckpt_path == "last" or unasked):
        return own
    if ckpt_path == "last":
        log.info("%s has no checkpoint yet: the run starts from its beginning", folder)
        return None
    return None if ckpt_path is None else Path(ckpt_path)


@contextmanager
def telling_how_to_go_on() -> Iterator[None]:
    """When a `Stopped` passes, says so on the first rank, with the command that goes on."""
    try:
        yield
    except Stopped as stopped:
        rank = this_rank()
        if rank is None or rank.number == 0:
            told = f"{stopped} To go on:\n  {how_to_go_on(sys.argv[1:])}"
            print(told, file=sys.stderr, flush=True)
        raise


def how_to_go_on(words: list[str]) -> str:
    """The command that goes on with the running job, or with the sweep that it is part of.

    Args:
        words: What it was started with.
    """
    kept = [word for word in words if not word.startswith(("ckpt_path=", *FOLDERS))]
    sweep = job.sweep_dir()
    key, folder = ("run", job.output_dir()) if sweep is None else ("sweep", sweep)
    kept += ["ckpt_path=last", f"hydra.{key}.dir={_shown(folder)}"]
    return f"python -m es2_lightning.train {shlex.join(kept)}"


def _shown(folder: Path) -> str:
    here = Path(os.getcwd())
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)
