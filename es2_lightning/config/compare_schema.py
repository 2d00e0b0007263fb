"""The whole config of `python -m es2_lightning.compare`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from es2_lightning.config import job_record
from es2_lightning.config.earlier_run import CONFIG
from es2_lightning.config.run_folder import ROOT, new_folder
from es2_lightning.errors import UserError

COMPARISONS = ROOT / "comparisons"
RESULTS = "results.json"
TELLING = {"loss", "evaluate"}
"""Keys of a config that `train` or `evaluate` was run with, and no other command."""


@dataclass
class CompareConfig:
    """Which runs are laid side by side."""

    runs: list[str] = field(default_factory=list)
    """Folders of runs, of evaluations, or of sweeps."""
    to: str | None = None
    """Where the page goes."""
    paper: bool = False
    """Whether the paper's figures stand beside the runs'."""


def check_compare(config: CompareConfig) -> None:
    """Refuse folders that hold no run.

    Raises:
        UserError: No run is named, or one of them is none.
    """
    if not config.runs:
        raise UserError(
            "runs is empty. Give it some: runs=[outputs/<run>,outputs/<run>], or a sweep's folder, "
            "runs=[outputs/sweeps/<time>]."
        )
    for name in config.runs:
        folder = Path(name)
        if not folder.is_dir():
            raise UserError(f"runs=[…,{name}]: no such folder. Accepted: a run's{_nearby(folder)}.")
        if not _is_run(folder) and not job_record.records(folder):
            raise UserError(
                f"runs=[…,{name}]: there is neither a run in it nor a sweep. Accepted: a folder "
                f"that `train` or `evaluate` wrote{_nearby(folder)}."
            )
    if config.to is not None and Path(config.to).is_file():
        raise UserError(f"to={config.to}: that is a file. Accepted: a folder, new or not.")


def run_folders(config: CompareConfig) -> list[Path]:
    """Every run's folder, once; a sweep's jobs in its place."""
    found: dict[Path, None] = {}
    for name in config.runs:
        folder = Path(name).absolute()
        jobs = [] if _is_run(folder) else list(job_record.records(folder))
        found |= dict.fromkeys(jobs or [folder])
    return list(found)


def page_folder(config: CompareConfig) -> Path:
    """Where the page goes; made where it is missing."""
    if config.to is not None:
        folder = Path(config.to).absolute()
    elif len(config.runs) == 1:
        folder = Path(config.runs[0]).absolute()
    else:
        return new_folder(COMPARISONS).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _is_run(folder: Path) -> bool:
    if (folder / RESULTS).is_file():
        return True
    try:
        config = yaml.safe_load((folder / CONFIG).read_text("utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError, yaml.YAMLError):
        return True  # Of a run that is damaged the page tells what is left.
    # `probe`, `rank` and `export` leave a config too, and nothing that could be compared.
    return not isinstance(config, dict) or bool(config.keys() & TELLING)


def _nearby(folder: Path) -> str:
    """The newest run beside `folder`, as an example."""
    for root in (folder, folder.parent):
        found = [path for path in root.glob(f"*/{CONFIG}") if _is_run(path.parent)]
        if found:
            return f", such as {max(found, key=lambda path: path.stat().st_mtime).parent}"
    return ", such as outputs/<run>"
